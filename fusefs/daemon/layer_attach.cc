// LayerManager: how a layer can be read, and getting its table of contents.
#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/daemon/layer_manager.h"
#include "fusefs/format/estargz.h"
#include "fusefs/format/layer_formats.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/tar_indexer.h"

namespace headrace::daemon {
namespace {

// containerd asks for the layers of an image one after the other; what it will ask next is fetched meanwhile.
constexpr size_t kTablesAhead = 16;
constexpr size_t kStreamsAhead = 3;
// eStargz: footer and, nearly always, the table in front of it, in one request.
constexpr uint64_t kTailBytes = 256 << 10;
// Smaller layers come in as much time as it takes to connect.
constexpr uint64_t kWarmBlobMin = 16 << 20;
// Idle connections live for about so long.
constexpr std::chrono::seconds kWarmFor{30};

bool IsNotFound(const Status& status) { return status.code() == StatusCode::kNotFound; }

// To our callers "not found" is the parent and nothing else.
Status FromRegistry(const Status& status, const char* what) {
  Status annotated = status.Annotate(what);
  return IsNotFound(annotated) ? UnavailableError(annotated.message()) : annotated;
}

// The bytes are here and do not make sense to us: the layer can be learned all the same.
bool CannotBeRead(const Status& status) {
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kResourceExhausted:
    case StatusCode::kUnimplemented:
    case StatusCode::kDataLoss:
    case StatusCode::kOutOfRange:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::shared_ptr<LayerManager::Layer> LayerManager::Begin(const LayerAsk& ask) {
  std::shared_ptr<Layer> layer;
  {
    MutexLock lock(mu_);
    std::shared_ptr<Layer>& slot = layers_[ask.Key()];
    if (slot == nullptr) slot = std::make_shared<Layer>(ask);
    layer = slot;
    ++layer->pins;
    if (layer->started) return layer;  // or it waits among those that are attached ahead: whoever is first takes it
  }
  attach_pool_.Post([this, layer] { Attach(layer); });
  return layer;
}

// Layers of the image from `from` on, before anybody asks for them. `streams`: those that must be learned, too.
void LayerManager::BeginAhead(const std::string& image_ref, const std::string& manifest_digest, const Image& image, size_t from, bool streams) {
  const TimePoint keep_until = std::chrono::steady_clock::now() + options_.keep_ahead;
  const size_t end = std::min(image.layers.size(), from + kTablesAhead);
  size_t streams_left = streams && options_.learn ? kStreamsAhead : 0;
  bool begun = false;
  for (size_t i = from; i < end && !stopping_.load(); ++i) {
    const ImageLayer& described = image.layers[i];
    LayerAsk ask{described.blob, "", image_ref, manifest_digest};
    if (auto label = described.annotations.find(std::string(format::kTocLabel)); label != described.annotations.end()) {
      auto location = format::TocLocation::Parse(label->second);
      if (!location.ok()) continue;
      ask.label = location->ToString();
    }
    auto hint = format::FormatOf(described.annotations, described.size);
    if (!hint.ok() || hint->format == format::LayerFormat::kNone) {
      if (streams_left == 0) continue;
      --streams_left;
    }
    std::shared_ptr<Layer> layer;
    {
      MutexLock lock(mu_);
      std::shared_ptr<Layer>& slot = layers_[ask.Key()];
      if (slot != nullptr) continue;
      slot = layer = std::make_shared<Layer>(ask);
      layer->keep_until = keep_until;
    }
    ahead_pool_.Post([this, layer] { Attach(layer); });
    begun = true;
  }
  if (begun) DropLater();  // what nobody asked for by then
}

void LayerManager::Attach(const std::shared_ptr<Layer>& layer) {
  bool ahead = false;
  {
    MutexLock lock(mu_);
    if (std::exchange(layer->started, true)) return;
    ahead = layer->pins == 0;
  }
  if (stopping_.load()) return Finish(layer, CancelledError("headrace-fused stops"));
  if (AttachFromDisk(layer)) return Finish(layer, OkStatus());
  if (layer->ask.label.empty()) {
    const Result<bool> attached = AttachByManifest(layer);
    if (!attached.ok() || *attached) Finish(layer, attached.status());
    return;
  }
  Finish(layer, AttachByLabel(layer));
  if (ahead || layer->ask.manifest_digest.empty()) return;
  // Somebody waits for the layers of this image one by one.
  auto image = catalog_.Get(layer->ask.image_ref, layer->ask.manifest_digest);
  if (!image.ok()) {
    log::Debug("no look ahead image={} error=\"{}\"", layer->ask.image_ref, image.status().ToString());
    return;
  }
  BeginAhead(layer->ask.image_ref, layer->ask.manifest_digest, **image, (*image)->Find(layer->ask.blob) + 1, false);
}

Status LayerManager::AttachByLabel(const std::shared_ptr<Layer>& layer) {
  LayerRecord record;
  record.ask = layer->ask;
  HR_ASSIGN_OR_RETURN(record.toc, format::TocLocation::Parse(layer->ask.label));
  Warm(record.Blob(), record.toc.blob_size);
  HR_ASSIGN_OR_RETURN(Table table, FetchTable(std::move(record), 0));
  return Keep(layer, std::move(table));
}

Result<bool> LayerManager::AttachByManifest(const std::shared_ptr<Layer>& layer) {
  const LayerAsk& ask = layer->ask;
  auto image = catalog_.Get(ask.image_ref, ask.manifest_digest);
  if (!image.ok()) return FromRegistry(image.status(), "manifest");
  const size_t place = (*image)->Find(ask.blob);
  if (place == (*image)->layers.size()) return InvalidArgumentError("image " + ask.image_ref + " has no such layer");
  const ImageLayer& described = (*image)->layers[place];
  BeginAhead(ask.image_ref, ask.manifest_digest, **image, place + 1, true);

  LayerRecord record;
  record.ask = ask;
  record.blob_size = described.size;
  auto hint = format::FormatOf(described.annotations, described.size);
  Status unreadable = hint.status();
  if (hint.ok() && hint->format != format::LayerFormat::kNone) {
    Warm(record.Blob(), described.size);
    record.toc = hint->toc;
    record.estargz_toc = hint->estargz_toc;
    Result<Table> table = UnimplementedError("");
    if (hint->format == format::LayerFormat::kEstargz) {
      record.kind = TableKind::kEstargz;
      table = FetchEstargz(std::move(record));
    } else {
      record.kind = hint->format == format::LayerFormat::kHeadrace ? TableKind::kHeadrace : TableKind::kZstdChunked;
      table = FetchTable(std::move(record), described.size);
    }
    if (table.ok()) {
      HR_RETURN_IF_ERROR(Keep(layer, std::move(*table)));
      return true;
    }
    if (!CannotBeRead(table.status())) return table.status();
    unreadable = table.status();
  }
  if (!unreadable.ok()) {
    log::Warn("a layer's table of contents cannot be used, the whole layer is read instead image={} layer={} error=\"{}\"", ask.image_ref,
              ask.blob.ToString(), unreadable.ToString());
  }
  if (auto kept = KeptTable(ask, described.diff_id)) {
    HR_RETURN_IF_ERROR(Keep(layer, std::move(*kept)));
    return true;
  }
  if (options_.learn && options_.defer) {
    HR_ASSIGN_OR_RETURN(std::optional<Table> walked, Walk(ask, described));
    if (walked) {
      HR_RETURN_IF_ERROR(Keep(layer, std::move(*walked)));
      return true;
    }
  }
  if (!options_.learn) return UnimplementedError("it has no table of contents (layers.without_table = \"leave\")");
  Learn(layer, described);
  return false;
}

// Beside the request for the table, which takes as long as they do: the first reader finds them there. Once for each image.
void LayerManager::Warm(const registry::BlobRef& blob, uint64_t blob_size) {
  if (blob_size < kWarmBlobMin) return;
  const TimePoint now = std::chrono::steady_clock::now();
  {
    MutexLock lock(mu_);
    std::erase_if(warmed_, [now](const auto& item) { return now - item.second > kWarmFor; });
    if (!warmed_.emplace(blob.image_ref, now).second) return;
  }
  reader_.Warm(blob, options_.warm_connections);
}

// The bytes of the blob that are the record's table, read and verified on the way.
Result<LayerManager::Table> LayerManager::FetchTableAt(LayerRecord record, uint64_t offset, uint64_t size) {
  Table table;
  auto bytes = reader_.Range(record.Blob(), offset, size, [&](std::string_view fetched) -> Status {
    HR_ASSIGN_OR_RETURN(table.index, ReadTable(record, fetched));
    return OkStatus();
  });
  if (!bytes.ok()) return FromRegistry(bytes.status(), "table of contents").Annotate(record.ask.image_ref);
  table.record = std::move(record);
  table.bytes = std::move(*bytes);
  return table;
}

Result<LayerManager::Table> LayerManager::FetchTable(LayerRecord record, uint64_t blob_size) {
  if (blob_size != 0 && record.toc.blob_size != blob_size) return InvalidArgumentError("its table of contents is of a blob of another size");
  const format::TocLocation toc = record.toc;
  return FetchTableAt(std::move(record), toc.offset, toc.compressed_size);
}

Result<LayerManager::Table> LayerManager::FetchEstargz(LayerRecord record) {
  const uint64_t size = record.blob_size;
  if (size < format::kEstargzFooterSize) return InvalidArgumentError("too short for an eStargz footer");
  const uint64_t tail_at = size - std::min(size, kTailBytes);
  auto tail = reader_.Range(record.Blob(), tail_at, size - tail_at, {});
  if (!tail.ok()) return FromRegistry(tail.status(), "eStargz footer").Annotate(record.ask.image_ref);
  HR_ASSIGN_OR_RETURN(format::EstargzFooter footer, format::ParseEstargzFooter(*tail));
  const uint64_t end = size - footer.size;
  if (footer.toc_offset >= end || end - footer.toc_offset > format::limits::kTocSizeMax) {
    return InvalidArgumentError("its eStargz footer points to a table of contents that is not there");
  }
  record.estargz_offset = footer.toc_offset;
  if (footer.toc_offset < tail_at) return FetchTableAt(std::move(record), footer.toc_offset, end - footer.toc_offset);
  Table table;
  table.bytes = tail->substr(footer.toc_offset - tail_at, end - footer.toc_offset);
  HR_ASSIGN_OR_RETURN(table.index, ReadTable(record, table.bytes));
  table.record = std::move(record);
  return table;
}

void LayerManager::Learn(const std::shared_ptr<Layer>& layer, const ImageLayer& described) {
  layer->progress.total_bytes.store(described.size);
  {
    MutexLock lock(mu_);
    layer->learning = true;
    attached_.NotifyAll();
  }
  learn_pool_.Post([this, layer, described] { Finish(layer, LearnNow(layer, described)); });
}

Status LayerManager::LearnNow(const std::shared_ptr<Layer>& layer, const ImageLayer& described) {
  if (Abandoned(*layer)) return CancelledError("nobody waits for it any more");
  LayerRecord record;
  record.ask = layer->ask;
  record.kind = TableKind::kLearned;
  record.blob_size = described.size;
  record.diff_id = described.diff_id;
  log::Info("a layer without a table of contents is read whole image={} layer={} bytes={}", record.ask.image_ref, record.ask.blob.ToString(),
            described.size);
  auto learned = learner_.Learn(record.Blob(), described.diff_id, layer->progress,
                                [this, layer = layer.get()] { return Abandoned(*layer); });
  if (!learned.ok()) return FromRegistry(learned.status(), "reading the whole layer");
  record.decoded = learned->decoded;
  Table table;
  table.bytes = std::move(learned->table);
  record.table = Digest::Of(table.bytes);
  table.record = std::move(record);
  HR_ASSIGN_OR_RETURN(table.index, format::ReadLearnedTable(table.bytes));  // its digest was just made
  Status kept = store_.KeepLearned(table.record, table.bytes);
  if (!kept.ok()) log::Warn("a learned table is not kept for later error=\"{}\"", kept.ToString());
  return Keep(layer, std::move(table));
}

std::optional<LayerManager::Table> LayerManager::KeptTable(const LayerAsk& ask, const Digest& diff_id) const {
  Table table;
  auto kept = store_.LoadLearned(ask, &table.bytes);
  if (!kept.ok()) {
    if (!IsNotFound(kept.status())) log::Warn("a kept table is not used error=\"{}\"", kept.status().ToString());
    return std::nullopt;
  }
  if (kept->diff_id != diff_id) return std::nullopt;
  auto index = ReadTable(*kept, table.bytes);
  if (!index.ok()) {
    log::Warn("a kept table is not used layer={} error=\"{}\"", ask.blob.ToString(), index.status().ToString());
    return std::nullopt;
  }
  table.record = std::move(*kept);
  table.index = std::move(*index);
  return table;
}

// The layer's directory is written, then the layer can be shown.
Status LayerManager::Keep(const std::shared_ptr<Layer>& layer, Table table) {
  // Not between somebody's decision to forget this layer and the removal of its directory.
  MutexLock control(control_mu_);
  HR_ASSIGN_OR_RETURN(table.record.slot, store_.TakeSlot());
  HR_RETURN_IF_ERROR(store_.SaveLayer(table.record, table.bytes));
  layer->source = MakeSource(layer, table.record, std::move(table.index));
  layer->record = std::move(table.record);
  return OkStatus();
}

void LayerManager::Finish(const std::shared_ptr<Layer>& layer, const Status& failure) {
  MutexLock lock(mu_);
  layer->done = true;
  if (!failure.ok()) {
    layer->failure = failure.Annotate(layer->ask.Name());
    layers_.erase(layer->ask.Key());  // the next Mount tries anew
  }
  attached_.NotifyAll();
}

bool LayerManager::Abandoned(const Layer& layer) {
  if (stopping_.load()) return true;
  MutexLock lock(mu_);
  return layer.pins == 0 && std::chrono::steady_clock::now() >= layer.keep_until;
}

}  // namespace headrace::daemon
