// LayerManager: layers that are shown before they were verified (layers.verify = "deferred"): plain tars, large enough for it to matter.
#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/base/text.h"
#include "fusefs/daemon/layer_manager.h"
#include "fusefs/format/tar_indexer.h"
#include "fusefs/stream/content_id.h"

namespace headrace::daemon {
namespace {

// Below that, reading all of it takes hardly longer than looking for its headers.
constexpr uint64_t kDeferMin = 16ull << 20;
// A window is as large as what is read of headers at a time; it grows while they stand side by side.
constexpr uint64_t kWindowFirst = 64ull << 10;
constexpr uint64_t kWindowNext = 16ull << 10;
constexpr uint64_t kWindowMax = 1ull << 20;
// Layers of so many small files are read whole at once.
constexpr unsigned kWalkRequestsMax = 2000;
constexpr uint64_t kWalkShare = 16;  // at most this part of the blob
constexpr std::chrono::seconds kWalkTimeMax{15};

std::span<const uint8_t> Bytes(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

}  // namespace

Result<std::optional<LayerManager::Table>> LayerManager::Walk(const LayerAsk& ask, const ImageLayer& described) {
  // The tar has to be the blob, or there is nothing that the whole can be verified by.
  if (described.size < kDeferMin || described.diff_id != ask.blob) return std::optional<Table>();
  Table table;
  table.record.ask = ask;
  table.record.kind = TableKind::kWalked;
  table.record.blob_size = described.size;
  table.record.diff_id = described.diff_id;
  const TimePoint begin = std::chrono::steady_clock::now();
  format::TarWalk walk;
  uint64_t window = kWindowFirst;
  uint64_t read = 0;
  const auto give_up = [&](std::string_view why) {
    log::Info("a layer is verified before it is shown layer={} reason=\"{}\"", ask.blob.ToString(), why);
    return std::optional<Table>();
  };
  for (unsigned requests = 0; !walk.at_end() && walk.position() < described.size; ++requests) {
    const uint64_t at = walk.position();
    const uint64_t size = std::min(window, described.size - at);
    if (requests == kWalkRequestsMax || read + size > described.size / kWalkShare) return give_up("too many headers");
    if (std::chrono::steady_clock::now() - begin > kWalkTimeMax) return give_up("looking for its headers takes too long");
    auto bytes = reader_.Range(table.record.Blob(), at, size, {});
    if (!bytes.ok()) return bytes.status().Annotate("tar headers").Annotate(ask.image_ref);
    read += size;
    if (Status status = walk.Write(Bytes(*bytes)); !status.ok()) return give_up(status.ToString());
    const bool all_headers = walk.position() <= at + size;
    window = all_headers ? std::min(2 * window, kWindowMax) : kWindowNext;
  }
  auto walked = walk.Finish(described.size);
  if (!walked.ok()) return give_up(walked.status().ToString());
  table.bytes = std::move(*walked);
  table.record.table = Digest::Of(table.bytes);
  HR_ASSIGN_OR_RETURN(table.index, format::ReadLearnedTable(table.bytes));
  log::Info("a layer is shown before it is verified layer={} image={} bytes={} files={} headers={}", ask.blob.ToString(), ask.image_ref, described.size,
            table.index.entries.size(), HumanBytes(read));
  return std::optional<Table>(std::move(table));
}

std::shared_ptr<const stream::LayerSource> LayerManager::MakeSource(const std::shared_ptr<Layer>& layer, const LayerRecord& record, format::LayerIndex index) {
  auto shared = std::make_shared<const format::LayerIndex>(std::move(index));
  stream::LayerSource source{record.Blob(), shared, nullptr};
  if (record.decoded) source.blob.seek_points = std::shared_ptr<const SeekPoints>(shared, &shared->seek_points);
  if (record.kind == TableKind::kWalked) {
    layer->deferred.store(Deferred::kUnknown);
    source.opener = learner_.Defer(record.Blob(), record.diff_id, shared, [this, weak = std::weak_ptr<Layer>(layer)](const Result<LearnedLayer>& learned) {
      learn_pool_.Post([this, weak, learned] {
        if (const auto ended = weak.lock(); ended && !stopping_.load()) DeferredEnded(ended, learned);
      });
    });
  }
  return std::make_shared<const stream::LayerSource>(std::move(source));
}

void LayerManager::DeferredEnded(const std::shared_ptr<Layer>& layer, const Result<LearnedLayer>& learned) {
  {
    // Attaching may not be at its end yet; the record and the source are constant then.
    MutexLock lock(mu_);
    attached_.WaitFor(mu_, std::chrono::minutes(1), [&] { return layer->done; });
    if (!layer->done || !layer->failure.ok()) return;
  }
  const LayerAsk& ask = layer->ask;
  if (learned.ok()) {
    LayerRecord record = layer->record;
    record.kind = TableKind::kLearned;
    record.decoded = learned->decoded;
    record.table = Digest::Of(learned->table);
    Status kept = store_.KeepLearned(record, learned->table);
    if (!kept.ok()) log::Warn("a learned table is not kept for later error=\"{}\"", kept.ToString());
    if (auto index = format::ReadLearnedTable(learned->table); index.ok()) {
      auto contents = std::make_shared<const std::vector<Digest>>(stream::ContentIds(*index));
      MutexLock lock(mu_);
      layer->contents = std::move(contents);  // the walked table could not tell
    }
    layer->deferred.store(Deferred::kVerified);
    Metrics::Add(metrics_.layers_verified);
    log::Info("a layer that was shown before is verified now layer={} image={}", ask.blob.ToString(), ask.image_ref);
    return;
  }
  layer->deferred.store(Deferred::kWrong);
  Metrics::Add(metrics_.layers_poisoned);
  log::Error("A LAYER IS WRONG that was read before it was verified: what has read it has read wrong bytes; nothing of it is read any more. Stop the containers that use it, remove "
             "and pull the image again layer={} image={} error=\"{}\"",
             ask.blob.ToString(), ask.image_ref, learned.status().ToString());
  if (options_.drop_pages) options_.drop_pages(layer->record.slot, layer->source->index->entries.size());
}

// A walked layer keeps its slot, and its nodes, when it has become a learned one.
Status LayerManager::Settle(LayerRecord* record, format::LayerIndex* index) const {
  auto kept = KeptTable(record->ask, record->diff_id);
  if (!kept) return OkStatus();
  if (const std::string difference = format::CompareShapes(*index, kept->index); !difference.empty()) {
    return DataLossError("what was shown of the layer is not what it holds: " + difference);
  }
  kept->record.slot = record->slot;
  *record = std::move(kept->record);
  *index = std::move(kept->index);
  return OkStatus();
}

}  // namespace headrace::daemon
