// LayerLearner: the seam between LayerManager and what reads a whole layer to learn its table of contents: before it is shown (stream/learn_layer.h) or while it is
// (stream/deferred_layer.h). Thread-safe; Learn blocks for as long as the layer takes to come.
#ifndef HEADRACE_FUSEFS_DAEMON_LAYER_LEARNER_H_
#define HEADRACE_FUSEFS_DAEMON_LAYER_LEARNER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/registry/range_source.h"
#include "fusefs/stream/learn_layer.h"
#include "fusefs/stream/streamer.h"

namespace headrace::daemon {

struct LearnProgress {
  std::atomic<uint64_t> done_bytes{0};
  std::atomic<uint64_t> total_bytes{0};
};

struct LearnedLayer {
  std::string table;     // for format::ReadLearnedTable
  bool decoded = false;  // BlobRef::decoded
};

// stream::LearnLayer as a learner does it.
Result<LearnedLayer> LearnWhole(const stream::LearnRequest& request, registry::RangeSource& source, cache::ContentStore& cache);

class LayerLearner {
 public:
  virtual ~LayerLearner() = default;
  // `blob.size` is its size. OK: blob and tar have the digests that were asked, every file's content is in the cache. Cancelled as soon as `cancelled` says so (asked often,
  // from any thread).
  virtual Result<LearnedLayer> Learn(const registry::BlobRef& blob, const Digest& diff_id, LearnProgress& progress,
                                     const std::function<bool()>& cancelled) = 0;
  // Begins to read a plain tar whose table was walked; its files are opened by what comes back. `on_end` says how it ended, once at most, on a thread of its own, and must not block.
  virtual std::shared_ptr<stream::LayerOpener> Defer(const registry::BlobRef& blob, const Digest& diff_id, std::shared_ptr<const format::LayerIndex> walked,
                                                     std::function<void(Result<LearnedLayer>)> on_end) = 0;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_LAYER_LEARNER_H_
