// MakeLayer: a tar, as it is produced, becomes a Headrace layer in a staged file. Shared by build and convert.
// Blocks on the producer, on compression and on the disk; memory as format::LayerWriter states. Any thread.
#ifndef HEADRACE_SNAPSHOTTER_CLI_LAYER_MAKER_H_
#define HEADRACE_SNAPSHOTTER_CLI_LAYER_MAKER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_writer.h"
#include "snapshotter/cli/image_model.h"
#include "snapshotter/cli/staging.h"

namespace headrace::cli {

struct MadeLayer {
  Descriptor descriptor;  // annotations included
  format::LayerSummary summary;
  std::unique_ptr<StagedBlob> staged;
};

using ByteSink = std::function<Status(std::span<const uint8_t>)>;

// `produce` writes the whole tar into the sink that it gets.
Result<MadeLayer> MakeLayer(const format::LayerWriterOptions& options, Staging& staging,
                            const std::function<Status(const ByteSink&)>& produce);

// How the cores are shared: `parallel` layers at a time with `threads` compressing threads each. At least two layers at a time, so
// that one is compressed while another is pushed. The buffers of all of them stay within kBufferBytesMax.
struct Lanes {
  unsigned parallel = 2;
  unsigned threads = 2;
};
inline constexpr uint64_t kBufferBytesMax = 1ull << 30;
Lanes LanesFor(unsigned jobs, size_t layers, uint64_t chunk_size);

// Runs job(0) .. job(count - 1), `parallel` at a time. After a failure no further job starts, `stop` becomes true for those that run,
// and the failure of the smallest number is returned.
Status RunJobs(size_t count, unsigned parallel,
               const std::function<Status(size_t index, const std::atomic<bool>& stop)>& job);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_LAYER_MAKER_H_
