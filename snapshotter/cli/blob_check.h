// BlobCheck: one layer, as its bytes stream by, against everything that is said about it:
//   * every layer: it decompresses, it is a tar, and the tar's SHA-256 is the DiffID of the image config;
//   * ours: every chunk of the table of contents is a frame that decodes to bytes of its digest; every entry of the tar is in the table
//     with the same type, size, mode, owner, time, link and device, and every file with the same content; nothing is in the table
//     alone.
// (The blob's own digest is the reader's business, the seek table is verify.cc's.) Findings are collected, not returned: one wrong byte
// gives few of them, and checking goes on. At most kFindingsMax are kept.
// One thread. Memory: the table of contents and one chunk. CPU only.
#ifndef HEADRACE_SNAPSHOTTER_CLI_BLOB_CHECK_H_
#define HEADRACE_SNAPSHOTTER_CLI_BLOB_CHECK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/format/layer_index.h"

namespace headrace::cli {

inline constexpr size_t kFindingsMax = 20;  // of one layer

class BlobCheck {
 public:
  // `index` may be null (not one of ours) and must outlive the object.
  BlobCheck(const std::optional<Digest>& diff_id, const format::LayerIndex* index);
  ~BlobCheck();
  void Write(std::span<const uint8_t> data);
  // After the last byte. What is wrong; empty if nothing is.
  std::vector<std::string> Finish();
  uint64_t chunks_checked() const;
  uint64_t tar_size() const;

 private:
  class Chunks;
  class Tar;
  std::vector<std::string> findings_;
  std::unique_ptr<Chunks> chunks_;
  std::unique_ptr<Tar> tar_;
};

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_BLOB_CHECK_H_
