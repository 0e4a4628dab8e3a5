// Baker: fills the root directory of a headrace-fused that does not run: layers (tables of contents), contents (verified, synced and sealed) and pins, so that the daemon that
// starts on a copy of the disk serves the images without a registry. No credentials are written.
//
// Create locks the root (FailedPrecondition: a daemon runs on it). One thread; everything blocks on the registry and the local disk. What was baked before stays; an image may be
// baked again. Errors: of the registry and the disk; DataLoss: something did not become whole.
#ifndef HEADRACE_FUSEFS_DAEMON_BAKE_H_
#define HEADRACE_FUSEFS_DAEMON_BAKE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/daemon/prefetch.h"
#include "fusefs/registry/client.h"

namespace headrace::daemon {

struct BakeOptions {
  std::string root;
  registry::ClientOptions client;
  unsigned threads = 1;  // that verify and decode
};

struct Baked {
  uint64_t layers = 0;
  uint64_t files = 0;
  uint64_t bytes = 0;     // decoded, of all files
  uint64_t contents = 0;  // distinct ones, pinned under the image's reference
};

class Baker {
 public:
  static Result<std::unique_ptr<Baker>> Create(const BakeOptions& options);
  virtual ~Baker() = default;
  // `image_ref`: as containerd will pull it; `manifest`: of the one image (no index). `progress`: false gives up.
  virtual Result<Baked> Bake(const std::string& image_ref, const Digest& manifest, const std::function<bool(const PrefetchState&)>& progress) = 0;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_BAKE_H_
