#include "fusefs/base/sha256_lane.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace headrace {
namespace {

// FIPS 180-4, section 5.3.3 and 4.2.2: fractional parts of the square roots of the first 8 primes, and of the cube roots of the first 64.
constexpr std::array<uint32_t, 8> kInitial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
alignas(64) constexpr std::array<uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

using State = std::array<uint32_t, 8>;

#if defined(__x86_64__)
#define HEADRACE_SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))

bool CpuHasSha() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSSE3) == 0 || (c & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
}

// The blocks of M messages into N states: one message into all of them, or each its own. The instructions want a state as two registers, {f, e, b, a} and {h, g, d, c} from the low word.
template <size_t N, size_t M>
HEADRACE_SHA_TARGET void Compress(State* const* states, std::array<const uint8_t*, M> data, size_t blocks) {
  static_assert(M == 1 || M == N);
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i abef[N], cdgh[N];
  for (size_t n = 0; n < N; ++n) {
    const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(states[n]->data()));
    const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(states[n]->data() + 4));
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1);
    const __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1B);
    abef[n] = _mm_alignr_epi8(cdab, efgh, 8);
    cdgh[n] = _mm_blend_epi16(efgh, cdab, 0xF0);
  }
  for (; blocks > 0; --blocks) {
    __m128i abef_before[N], cdgh_before[N], w[M][4];
    for (size_t n = 0; n < N; ++n) {
      abef_before[n] = abef[n];
      cdgh_before[n] = cdgh[n];
    }
    for (size_t m = 0; m < M; ++m) {
      for (size_t i = 0; i < 4; ++i) {
        w[m][i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data[m]) + i), big_endian);
      }
      data[m] += 64;
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; ++i) {  // four rounds each
      __m128i low[M], high[M];
      for (size_t m = 0; m < M; ++m) {
        if (i >= 4) {
          // w[t] = w[t-16] + s0(w[t-15]) + w[t-7] + s1(w[t-2]), four at a time
          const __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(w[m][i % 4], w[m][(i + 1) % 4]),
                                                _mm_alignr_epi8(w[m][(i + 3) % 4], w[m][(i + 2) % 4], 4));
          w[m][i % 4] = _mm_sha256msg2_epu32(partial, w[m][(i + 3) % 4]);
        }
        low[m] = _mm_add_epi32(w[m][i % 4], _mm_load_si128(reinterpret_cast<const __m128i*>(kRound.data()) + i));
        high[m] = _mm_shuffle_epi32(low[m], 0x0E);
      }
      for (size_t n = 0; n < N; ++n) cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], low[n % M]);
      for (size_t n = 0; n < N; ++n) abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], high[n % M]);
    }
    for (size_t n = 0; n < N; ++n) {
      abef[n] = _mm_add_epi32(abef[n], abef_before[n]);
      cdgh[n] = _mm_add_epi32(cdgh[n], cdgh_before[n]);
    }
  }
  for (size_t n = 0; n < N; ++n) {
    const __m128i feba = _mm_shuffle_epi32(abef[n], 0x1B);
    const __m128i dchg = _mm_shuffle_epi32(cdgh[n], 0xB1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(states[n]->data()), _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(states[n]->data() + 4), _mm_alignr_epi8(dchg, feba, 8));
  }
}
#else
bool CpuHasSha() { return false; }
template <size_t N, size_t M>
void Compress(State* const*, std::array<const uint8_t*, M>, size_t) {}
#endif

void CompressLanes(std::span<State* const> states, const uint8_t* data, size_t blocks) {
  if (blocks == 0) return;
  switch (states.size()) {
    case 1: return Compress<1, 1>(states.data(), {data}, blocks);
    case 2: return Compress<2, 1>(states.data(), {data}, blocks);
    default: return Compress<3, 1>(states.data(), {data}, blocks);
  }
}

}  // namespace

bool Sha256Lane::HasInstructions() {
  static const bool has = CpuHasSha();
  return has;
}

Sha256Lane::Sha256Lane(Engine engine) {
  if (engine == Engine::kOpenSsl || !HasInstructions()) openssl_.emplace();
  Reset();
}

void Sha256Lane::Reset() {
  state_ = kInitial;
  size_ = 0;
}

void Sha256Lane::Update(std::span<const uint8_t> data) {
  if (data.empty()) return;
  if (openssl_) return openssl_->Update(data);
  State* const state = &state_;
  if (const size_t have = rest_size(); have > 0) {
    const size_t n = std::min(kBlock - have, data.size());
    std::memcpy(rest_.data() + have, data.data(), n);
    size_ += n;
    data = data.subspan(n);
    if (have + n < kBlock) return;
    CompressLanes({&state, 1}, rest_.data(), 1);
  }
  const size_t blocks = data.size() / kBlock;
  CompressLanes({&state, 1}, data.data(), blocks);
  const std::span<const uint8_t> rest = data.subspan(blocks * kBlock);
  std::copy(rest.begin(), rest.end(), rest_.begin());
  size_ += data.size();
}

Digest Sha256Lane::Finish() {
  if (openssl_) return openssl_->Finish();
  // The bit 1, zeros up to the last eight bytes of a block, and the length in bits, big-endian (FIPS 180-4, section 5.1.1).
  std::array<uint8_t, 2 * kBlock> tail{};
  const size_t have = rest_size();
  const size_t blocks = have + 9 <= kBlock ? 1 : 2;
  std::copy_n(rest_.begin(), have, tail.begin());
  tail[have] = 0x80;
  for (size_t i = 0; i < 8; ++i) tail[blocks * kBlock - 1 - i] = static_cast<uint8_t>((size_ * 8) >> (8 * i));
  State* const state = &state_;
  CompressLanes({&state, 1}, tail.data(), blocks);
  std::array<uint8_t, Digest::kSize> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(state_[i / 4] >> (8 * (3 - i % 4)));
  Reset();
  return Digest(bytes);
}

void UpdateLanes(std::span<Sha256Lane* const> lanes, std::span<const uint8_t> data) {
  HEADRACE_CHECK(lanes.size() <= Sha256Lane::kTogetherMax);
  std::array<State*, Sha256Lane::kTogetherMax> states{};
  bool together = lanes.size() > 1;
  for (size_t n = 0; n < lanes.size(); ++n) {
    together = together && !lanes[n]->openssl_ && lanes[n]->rest_size() == 0;
    states[n] = &lanes[n]->state_;
  }
  const size_t whole = together ? data.size() / Sha256Lane::kBlock * Sha256Lane::kBlock : 0;
  if (together) CompressLanes(std::span<State* const>(states).first(lanes.size()), data.data(), whole / Sha256Lane::kBlock);
  for (Sha256Lane* lane : lanes) {
    lane->size_ += whole;
    lane->Update(data.subspan(whole));
  }
}

std::array<Digest, 2> DigestsOfTwo(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  Sha256Lane first, second;
  const size_t blocks = first.openssl_ ? 0 : std::min(a.size(), b.size()) / Sha256Lane::kBlock;
  const size_t whole = blocks * Sha256Lane::kBlock;
  if (blocks > 0) {
    const std::array<State*, 2> states = {&first.state_, &second.state_};
    Compress<2, 2>(states.data(), {a.data(), b.data()}, blocks);
    first.size_ = second.size_ = whole;
  }
  first.Update(a.subspan(whole));
  second.Update(b.subspan(whole));
  return {first.Finish(), second.Finish()};
}

}  // namespace headrace
