// Sha256Lane: one of several SHA-256 that take the same bytes, such as the digests of a chunk, of its file and of the tar around both.
//
// The instructions of the processor for one SHA-256 wait for each other most of the time, and half of the work (the message
// schedule) depends on the bytes alone. So UpdateLanes with two lanes takes as long as one digest does, with three 1.2 times as long
// (AMD EPYC 9004; test/bench). Without these instructions (x86 SHA extensions) the lanes are OpenSSL's, one after the other: same
// digests, three times the work.
// A value: copying goes on from the bytes taken so far. Used by one thread at a time. Nothing blocks.
#ifndef HEADRACE_FUSEFS_BASE_SHA256_LANE_H_
#define HEADRACE_FUSEFS_BASE_SHA256_LANE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "fusefs/base/digest.h"

namespace headrace {

class Sha256Lane {
 public:
  enum class Engine { kFastest, kOpenSsl };
  static constexpr size_t kTogetherMax = 3;
  explicit Sha256Lane(Engine engine = Engine::kFastest);
  void Update(std::span<const uint8_t> data);
  // The lane starts anew afterwards.
  Digest Finish();
  // Whether this machine has the instructions.
  static bool HasInstructions();

 private:
  friend std::array<Digest, 2> DigestsOfTwo(std::span<const uint8_t> a, std::span<const uint8_t> b);
  friend void UpdateLanes(std::span<Sha256Lane* const> lanes, std::span<const uint8_t> data);
  static constexpr size_t kBlock = 64;
  void Reset();
  size_t rest_size() const { return size_ % kBlock; }

  std::array<uint32_t, 8> state_{};
  std::array<uint8_t, kBlock> rest_{};  // the first rest_size() bytes: not in state_ yet
  uint64_t size_ = 0;
  std::optional<Sha256> openssl_;
};

// The same as Update(data) of each lane. REQUIRES: at most kTogetherMax lanes, all distinct. Fastest where the lanes took a multiple of
// 64 bytes before; others are updated one after the other.
void UpdateLanes(std::span<Sha256Lane* const> lanes, std::span<const uint8_t> data);

// The digests of two independent messages, such as two chunks: 1.1 times the time of one, as far as the shorter one goes.
std::array<Digest, 2> DigestsOfTwo(std::span<const uint8_t> a, std::span<const uint8_t> b);

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_SHA256_LANE_H_
