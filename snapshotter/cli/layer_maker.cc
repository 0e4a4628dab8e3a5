#include "snapshotter/cli/layer_maker.h"

#include <algorithm>
#include <vector>

#include "fusefs/base/executor.h"

namespace headrace::cli {

Result<MadeLayer> MakeLayer(const format::LayerWriterOptions& options, Staging& staging,
                            const std::function<Status(const ByteSink&)>& produce) {
  MadeLayer made;
  HR_ASSIGN_OR_RETURN(made.staged, staging.NewBlob());
  StagedBlob* blob = made.staged.get();
  HR_ASSIGN_OR_RETURN(std::unique_ptr<format::LayerWriter> writer,
                      format::LayerWriter::Create(options, [blob](std::span<const uint8_t> data) { return blob->Append(data); }));
  HR_RETURN_IF_ERROR(produce([&](std::span<const uint8_t> tar) { return writer->Write(tar); }));
  HR_ASSIGN_OR_RETURN(made.summary, writer->Finish());
  if (made.summary.blob_size != blob->size()) return InternalError("the layer has another size than its writer says");
  made.descriptor.media_type = kOciLayerZstd;
  made.descriptor.digest = made.summary.blob_digest;
  made.descriptor.size = made.summary.blob_size;
  made.descriptor.annotations = made.summary.annotations;
  return made;
}

Lanes LanesFor(unsigned jobs, size_t layers, uint64_t chunk_size) {
  Lanes lanes;
  const auto most = static_cast<unsigned>(std::clamp<size_t>(layers, 1, 64));
  lanes.parallel = jobs <= 1 ? 1 : std::min(std::max(2u, jobs / 4), most);
  lanes.threads = std::max(1u, jobs / std::max(1u, lanes.parallel / 2 + lanes.parallel % 2));
  lanes.threads = std::min(lanes.threads, 32u);
  const auto buffers = [&] { return lanes.parallel * format::LayerWriterBuffers(lanes.threads, chunk_size); };
  while (lanes.parallel > 2 && buffers() > kBufferBytesMax) --lanes.parallel;
  while (lanes.threads > 1 && buffers() > kBufferBytesMax) --lanes.threads;
  return lanes;
}

Status RunJobs(size_t count, unsigned parallel,
               const std::function<Status(size_t index, const std::atomic<bool>& stop)>& job) {
  std::atomic<bool> stop{false};
  std::vector<Status> outcomes(count);
  {
    ThreadPool pool("layers", std::max(1u, parallel));
    for (size_t i = 0; i < count; ++i) {
      pool.Post([&, i] {
        if (stop) return;
        outcomes[i] = job(i, stop);
        if (!outcomes[i].ok()) stop = true;
      });
    }
  }  // waits for all
  // A job that stopped because of another one's failure is not the reason.
  Status first;
  for (const Status& outcome : outcomes) {
    if (outcome.ok()) continue;
    if (first.ok() || first.code() == StatusCode::kCancelled) first = outcome;
  }
  return first;
}

}  // namespace headrace::cli
