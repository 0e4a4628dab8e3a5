// LayerLearner: the seam between LayerManager and what reads a whole layer to learn its table of contents (stream/learn_layer.h). Thread-safe;
// Learn blocks for as long as the layer takes to come.
#ifndef HEADRACE_FUSEFS_DAEMON_LAYER_LEARNER_H_
#define HEADRACE_FUSEFS_DAEMON_LAYER_LEARNER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/range_source.h"

namespace headrace::daemon {

struct LearnProgress {
  std::atomic<uint64_t> done_bytes{0};
  std::atomic<uint64_t> total_bytes{0};
};

struct LearnedLayer {
  std::string table;     // for format::ReadLearnedTable
  bool decoded = false;  // BlobRef::decoded
};

class LayerLearner {
 public:
  virtual ~LayerLearner() = default;
  // `blob.size` is its size. OK: blob and tar have the digests that were asked, every file's content is in the cache. Cancelled as soon as `cancelled` says so (asked often,
  // from any thread).
  virtual Result<LearnedLayer> Learn(const registry::BlobRef& blob, const Digest& diff_id, LearnProgress& progress,
                                     const std::function<bool()>& cancelled) = 0;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_LAYER_LEARNER_H_
