// LayerRecord: a layer as headrace-fused knows it: the blob, where its table of contents comes from, and how the table is read. Values; pure.
//
// A table is one of five: ours or containers/storage's zstd:chunked (both located by a TocLocation), eStargz's, one that was *learned* by reading the whole
// blob once (stream/learn_layer.h), or one that was *walked* (stream/deferred_layer.h) and knows no digests: the layer is verified as a whole while it is read.
// Whatever is read through one of the other four was verified by it; the table by a digest that leads to the manifest, or, if learned, by the blob's own digest.
#ifndef HEADRACE_FUSEFS_DAEMON_LAYER_RECORD_H_
#define HEADRACE_FUSEFS_DAEMON_LAYER_RECORD_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/format/toc.h"
#include "fusefs/registry/range_source.h"

namespace headrace::daemon {

enum class TableKind : uint8_t { kHeadrace, kZstdChunked, kEstargz, kLearned, kWalked };

// "headrace", "zstd:chunked", "estargz", "learned", "deferred".
std::string_view TableKindName(TableKind kind);
Result<TableKind> ParseTableKind(std::string_view name);

// Which layer somebody asks for: what containerd's labels say.
struct LayerAsk {
  Digest blob;
  std::string label;            // value of the label headrace.toc; "" = what the manifest says of the layer
  std::string image_ref;
  std::string manifest_digest;  // of the image's manifest; needed if there is no label

  // Name of the layer's directory, and its identity: a layer is its blob read through one table of contents, which the label or the manifest determines.
  std::string Key() const;
  std::string Name() const { return "layer " + blob.ToString(); }
};

struct LayerRecord {
  LayerAsk ask;
  uint32_t slot = 0;
  TableKind kind = TableKind::kHeadrace;
  format::TocLocation toc;      // kHeadrace, kZstdChunked
  Digest estargz_toc;           // kEstargz: of the JSON
  uint64_t estargz_offset = 0;  // kEstargz: of the table in the blob
  uint64_t blob_size = 0;       // kEstargz, kLearned, kWalked
  Digest table;                 // kLearned, kWalked: of the table on disk
  Digest diff_id;               // kLearned, kWalked: of the tar
  bool decoded = false;         // kLearned: offsets are those of the tar and not of the blob

  registry::BlobRef Blob() const { return {ask.image_ref, ask.blob, decoded, blob_size, nullptr}; }
};

// Verifies the bytes of a layer's table and reads them. DataLoss: not what the record says; InvalidArgument, ResourceExhausted: malformed.
Result<format::LayerIndex> ReadTable(const LayerRecord& record, std::string_view bytes);

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_LAYER_RECORD_H_
