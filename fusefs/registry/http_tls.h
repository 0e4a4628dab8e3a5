// TLS beyond the system's authorities, as hosts.toml files ask for it. Internal to registry/. Values; the files are read by libcurl when a connection is made.
#ifndef HEADRACE_FUSEFS_REGISTRY_HTTP_TLS_H_
#define HEADRACE_FUSEFS_REGISTRY_HTTP_TLS_H_

#include <string>

namespace headrace::registry {

// What TLS needs beyond the system's authorities.
struct TlsSettings {
  std::string ca_pem;              // further authorities
  std::string client_certificate;  // file, PEM
  std::string client_key;          // file, PEM; "": in the same file
  bool skip_verify = false;
};

// `easy` is a CURL handle.
void ApplyTls(void* easy, const TlsSettings& tls);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_HTTP_TLS_H_
