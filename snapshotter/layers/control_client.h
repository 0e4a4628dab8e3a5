// LayerMounter over the control socket of headrace-fused (proto/headrace/control.proto, gRPC).
// Thread-safe; connects on first use and again whenever the daemon comes back. A call that
// the daemon's death cut off is made again until its deadline; an error of the daemon's own is not.
#ifndef HEADRACE_SNAPSHOTTER_LAYERS_CONTROL_CLIENT_H_
#define HEADRACE_SNAPSHOTTER_LAYERS_CONTROL_CLIENT_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "snapshotter/layers/layer_mounter.h"

namespace headrace::snapshotter {

// One pull's; identity_token stands instead of username and password.
struct ImageCredentials {
  std::string image;
  std::string username;
  std::string password;
  std::string identity_token;
};

class ControlClient : public LayerMounter {
 public:
  struct Options {
    std::string socket;
    // Check and Unmount touch no network: a daemon that does not answer in this time counts as not
    // running.
    std::chrono::milliseconds local_timeout{5000};
  };
  explicit ControlClient(Options options);
  ~ControlClient() override;

  Result<MountAnswer> Mount(const MountSpec& spec,
                            std::chrono::steady_clock::time_point deadline) override;
  Result<std::string> Check(uint64_t id) override;
  Status Unmount(uint64_t id) override;
  // Tells the daemon what images were pulled with; which process of it has been told. Never logs what it tells.
  Result<std::string> SetCredentials(const std::vector<ImageCredentials>& credentials,
                                     std::chrono::milliseconds timeout);

 private:
  struct Stub;
  Options options_;
  std::unique_ptr<Stub> stub_;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_LAYERS_CONTROL_CLIENT_H_
