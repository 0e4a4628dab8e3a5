#include "fusefs/registry/http_tls.h"

#include <curl/curl.h>

#include "fusefs/base/status.h"

namespace headrace::registry {

void ApplyTls(void* easy, const TlsSettings& tls) {
  auto set = [easy](CURLoption option, auto value) { HEADRACE_CHECK(curl_easy_setopt(easy, option, value) == CURLE_OK); };
  if (!tls.ca_pem.empty()) {
    // In place of the bundle file; the system's directory of authorities stays.
    curl_blob blob{const_cast<char*>(tls.ca_pem.data()), tls.ca_pem.size(), CURL_BLOB_COPY};
    set(CURLOPT_CAINFO_BLOB, &blob);
  }
  if (!tls.client_certificate.empty()) {
    set(CURLOPT_SSLCERT, tls.client_certificate.c_str());
    set(CURLOPT_SSLKEY, (tls.client_key.empty() ? tls.client_certificate : tls.client_key).c_str());
  }
  if (tls.skip_verify) {
    set(CURLOPT_SSL_VERIFYPEER, 0L);
    set(CURLOPT_SSL_VERIFYHOST, 0L);
  }
}

}  // namespace headrace::registry
