// FakeLayer: builds a LayerIndex and its blob in memory, without the layer writer of format/, so that every cut can be had.
#ifndef HEADRACE_TEST_STREAM_FAKE_LAYER_H_
#define HEADRACE_TEST_STREAM_FAKE_LAYER_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fusefs/stream/streamer.h"

namespace headrace::stream {

class FakeLayer {
 public:
  explicit FakeLayer(std::string image_ref = "registry.test/model:1") : image_ref_(std::move(image_ref)) {}

  // Adds a file cut at `cuts` (sizes of its chunks; their sum is the size). Chunks of zeros only become kZeros if `holes`.
  uint32_t AddFile(const std::string& name, std::vector<uint8_t> bytes, const std::vector<uint64_t>& cuts, bool holes = false);
  // A file of `chunks` chunks of `chunk_size` random bytes.
  uint32_t AddRandomFile(const std::string& name, uint32_t chunks, uint64_t chunk_size, unsigned long seed);
  // Bytes of the blob between files (as tar headers are).
  void AddGap(size_t bytes) { blob_.resize(blob_.size() + bytes, 0x55); }

  // The layer as it is now; the blob's digest is that of its bytes.
  std::shared_ptr<const LayerSource> Source() const;
  const std::vector<uint8_t>& blob() const { return blob_; }
  Digest blob_digest() const { return Digest::Of(blob_); }
  const std::vector<uint8_t>& file(uint32_t entry) const { return files_[entry]; }
  format::LayerIndex& index() { return index_; }

 private:
  const std::string image_ref_;
  format::LayerIndex index_;
  std::vector<uint8_t> blob_;
  std::vector<std::vector<uint8_t>> files_;
};

}  // namespace headrace::stream

#endif  // HEADRACE_TEST_STREAM_FAKE_LAYER_H_
