#include "snapshotter/keychain/pull_secret.h"

#include "fusefs/base/text.h"
#include "headrace/pull_image.pb.h"

namespace headrace::snapshotter {
namespace {

constexpr size_t kImageBytesMax = 4096;

// "https://host/v1/" -> "host"; docker's names for its own registry are one.
std::string HostOf(std::string_view text) {
  const size_t scheme = text.find("://");
  if (scheme != std::string_view::npos) text.remove_prefix(scheme + 3);
  std::string host(text.substr(0, text.find('/')));
  return host == "index.docker.io" || host == "registry-1.docker.io" ? "docker.io" : host;
}

// The registry of a reference: its first component if that looks like a host.
std::string RegistryOf(const std::string& image) {
  const size_t slash = image.find('/');
  const std::string first = image.substr(0, slash);
  const bool host = slash != std::string::npos &&
                    (first.find_first_of(".:") != std::string::npos || first == "localhost");
  return host ? HostOf(first) : "docker.io";
}

}  // namespace

bool IsPullImage(std::string_view method) {
  return method.starts_with("/runtime.v1") && method.ends_with(".ImageService/PullImage");
}

std::optional<PullSecret> ParsePullSecret(const std::string& message) {
  cri::v1::PullImageRequest request;
  if (!request.ParseFromString(message) || !request.has_auth()) return std::nullopt;
  const cri::v1::AuthConfig& auth = request.auth();
  PullSecret out;
  out.image = request.image().image();
  if (out.image.empty() || out.image.size() > kImageBytesMax) return std::nullopt;
  if (!auth.server_address().empty() &&
      HostOf(auth.server_address()) != RegistryOf(out.image)) {
    return std::nullopt;
  }
  if (!auth.username().empty()) {
    out.username = auth.username();
    out.password = auth.password();
  } else if (!auth.identity_token().empty()) {
    out.identity_token = auth.identity_token();
  } else if (!auth.auth().empty()) {
    Result<std::string> plain = Base64Decode(auth.auth());
    const size_t colon = plain.ok() ? plain->find(':') : std::string::npos;
    if (colon == std::string::npos) return std::nullopt;
    out.username = plain->substr(0, colon);
    out.password = plain->substr(colon + 1);
    while (!out.password.empty() && out.password.back() == '\0') out.password.pop_back();
  }
  if (out.username.empty() && out.identity_token.empty()) return std::nullopt;
  return out;
}

}  // namespace headrace::snapshotter
