// What a CRI PullImage request says about credentials; pure.
//
// Format: the CRI API's PullImageRequest (proto/headrace/pull_image.proto), as containerd reads it: an AuthConfig whose server_address is
// another host than the image's does not count; then username and password, else identity_token, else auth (base64 of
// "username:password"). registry_token is not supported by containerd nor here.
#ifndef HEADRACE_SNAPSHOTTER_KEYCHAIN_PULL_SECRET_H_
#define HEADRACE_SNAPSHOTTER_KEYCHAIN_PULL_SECRET_H_

#include <optional>
#include <string>
#include <string_view>

namespace headrace::snapshotter {

struct PullSecret {
  std::string image;  // as the request names it
  std::string username;
  std::string password;
  std::string identity_token;
  bool operator==(const PullSecret&) const = default;
};

// True if `method` ("/runtime.v1.ImageService/PullImage") pulls an image, in any version of the API.
bool IsPullImage(std::string_view method);
// nullopt: no credentials, or none that could be used. `message` is one serialised request; any bytes
// are fine.
std::optional<PullSecret> ParsePullSecret(const std::string& message);

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_KEYCHAIN_PULL_SECRET_H_
