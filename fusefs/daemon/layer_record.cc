#include "fusefs/daemon/layer_record.h"

#include <array>
#include <span>

#include "fusefs/format/estargz.h"
#include "fusefs/format/tar_indexer.h"

namespace headrace::daemon {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"headrace", "zstd:chunked", "estargz", "learned", "deferred"};

std::span<const uint8_t> Bytes(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

Result<format::LayerIndex> ReadLearned(const LayerRecord& record, std::string_view bytes) {
  HR_ASSIGN_OR_RETURN(format::LayerIndex index, format::ReadLearnedTable(bytes));
  if (!index.seek_points.empty() && index.seek_points.back().blob_offset >= record.blob_size) {
    return DataLossError("the learned table on disk has seek points beyond the blob");
  }
  return index;
}

}  // namespace

std::string_view TableKindName(TableKind kind) { return kNames.at(static_cast<size_t>(kind)); }

Result<TableKind> ParseTableKind(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<TableKind>(i);
  }
  return DataLossError("\"" + std::string(name) + "\" is no format of a layer");
}

std::string LayerAsk::Key() const {
  std::string identity = blob.ToString() + "\n" + label;
  if (label.empty()) identity += "\n" + manifest_digest;
  return Digest::Of(identity).Hex();
}

Result<format::LayerIndex> ReadTable(const LayerRecord& record, std::string_view bytes) {
  switch (record.kind) {
    case TableKind::kHeadrace:
    case TableKind::kZstdChunked:
      return format::ReadToc(Bytes(bytes), record.toc);
    case TableKind::kEstargz:
      return format::ReadEstargzToc(Bytes(bytes), record.estargz_toc, record.estargz_offset, record.blob_size);
    case TableKind::kLearned:
    case TableKind::kWalked:
      if (Digest::Of(bytes) != record.table) return DataLossError("the learned table on disk has another digest");
      return ReadLearned(record, bytes);
  }
  return InternalError("a layer of no format");
}

}  // namespace headrace::daemon
