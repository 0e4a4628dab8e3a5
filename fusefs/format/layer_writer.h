// LayerWriter: an uncompressed tar stream in, a Headrace layer blob out (fusefs/format/README.md has the bytes).
//
// The tar is kept to the byte: the DiffID (its SHA-256) is what it was. The blob is a plain tar+zstd stream for everybody else.
// One thread drives Write/Finish; digests and compression run on `options.threads` threads of the writer's own. Memory is
// LayerWriterBuffers and what zstd needs for each thread (2 MiB at level 3, 100 MiB at level 19), whatever the file size, besides the
// table of contents. Write blocks while the workers are behind.
// Output is reproducible: the same tar and options give the same bytes (zstd library version being equal), whatever `threads` is.
#ifndef HEADRACE_FUSEFS_FORMAT_LAYER_WRITER_H_
#define HEADRACE_FUSEFS_FORMAT_LAYER_WRITER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/format/toc.h"

namespace headrace::format {

struct LayerWriterOptions {
  uint64_t chunk_size = 4ull << 20;  // decoded bytes, 64 KiB .. 16 MiB
  int zstd_level = 3;
  unsigned threads = 1;
};

// threads + 4 jobs under way and one that is filled, each with its bytes and its frames.
constexpr uint64_t LayerWriterBuffers(unsigned threads, uint64_t chunk_size) { return (2 * uint64_t{threads} + 10) * chunk_size; }

struct LayerSummary {
  Digest diff_id;       // SHA-256 of the tar
  uint64_t tar_size = 0;
  Digest blob_digest;
  uint64_t blob_size = 0;
  TocLocation toc;
  // (Of tars that containers/storage would refuse by their table only headrace.toc: README.md, "Annotations".)
  // For the layer's descriptor in the manifest: headrace.toc and the io.github.containers.zstd-chunked.* annotations.
  std::map<std::string, std::string> annotations;
  uint64_t files = 0;
  uint64_t chunks = 0;
};

class LayerWriter {
 public:
  // Receives the blob in order; an error stops the writer and is returned by Write/Finish.
  using Sink = std::function<Status(std::span<const uint8_t>)>;
  static Result<std::unique_ptr<LayerWriter>> Create(const LayerWriterOptions& options, Sink sink);
  virtual ~LayerWriter() = default;
  // The next bytes of the tar, any split.
  virtual Status Write(std::span<const uint8_t> tar) = 0;
  // End of the tar. InvalidArgument if it is truncated, is not a tar, or cannot be a layer that is read by its table of contents
  // (such names, types or numbers); ResourceExhausted if its table would be above limits.h. The sink is called by Write and
  // Finish, on the caller's thread.
  virtual Result<LayerSummary> Finish() = 0;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_LAYER_WRITER_H_
