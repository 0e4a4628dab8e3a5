// `headrace verify`: fetches all of an image and checks every digest in it. README.md of this folder lists what is checked.
// A finding is something wrong with the image; a failing Status means that it could not be checked (registry or disk trouble).
#ifndef HEADRACE_SNAPSHOTTER_CLI_VERIFY_H_
#define HEADRACE_SNAPSHOTTER_CLI_VERIFY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/cli/build.h"

namespace headrace::cli {

struct VerifyOptions {
  Location image;
  std::optional<Platform> platform;
};

struct Finding {
  std::string where;  // "manifest sha256:...", "layer sha256:..."
  std::string what;
};

struct VerifyReport {
  std::string image;
  Digest digest;
  std::vector<Finding> findings;
  size_t images = 0;
  size_t artifacts = 0;
  size_t layers = 0;       // distinct ones
  size_t lazy_layers = 0;  // of these, ours
  uint64_t chunks = 0;
  uint64_t bytes = 0;      // of blobs
  uint64_t tar_bytes = 0;
  double seconds = 0;
};

Result<VerifyReport> Verify(const VerifyOptions& options, const CommandContext& context);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_VERIFY_H_
