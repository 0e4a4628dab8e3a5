// TarSplitWriter: the tar-split of a layer (vbatts/tar-split: what of a tar is not file content, as JSON lines), compressed.
// containers/storage makes the original tar from it and the files. Used by one thread; memory is the compressed text.
#ifndef HEADRACE_FUSEFS_FORMAT_TAR_SPLIT_H_
#define HEADRACE_FUSEFS_FORMAT_TAR_SPLIT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"
#include "fusefs/format/zstd_frame.h"

namespace headrace::format {

class TarSplitWriter {
 public:
  static Result<std::unique_ptr<TarSplitWriter>> Create(int zstd_level);
  // Bytes of the tar: padding of the file before, and all headers of the next entry; or the end of the tar.
  Status Segment(std::string_view bytes);
  // Content of `size` bytes goes here; `crc` counts if size > 0.
  Status File(std::string_view name, uint64_t size, uint64_t crc);
  Status Finish();
  // Beyond limits::kTarSplitSizeMax: there is nothing to use.
  bool too_large() const { return too_large_; }
  const std::string& compressed() const { return out_->compressed(); }
  uint64_t uncompressed_size() const { return out_->uncompressed_size(); }

 private:
  explicit TarSplitWriter(std::unique_ptr<MemoryCompressor> out) : out_(std::move(out)) {}
  Status Line(std::string line);
  std::unique_ptr<MemoryCompressor> out_;
  uint64_t position_ = 0;
  bool too_large_ = false;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TAR_SPLIT_H_
