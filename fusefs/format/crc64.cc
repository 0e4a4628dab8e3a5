#include "fusefs/format/crc64.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace headrace::format {
namespace {

constexpr uint64_t kPolynomial = 0xD800000000000000;  // reflected: the highest bit is x^0
static_assert(std::endian::native == std::endian::little);

// tables[0] is the byte-wise table; tables[k][b] is the effect of byte b followed by k zero bytes.
constexpr auto kTables = [] {
  std::array<std::array<uint64_t, 256>, 8> tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint64_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; ++i) {
    for (size_t k = 1; k < 8; ++k) {
      tables[k][i] = tables[0][tables[k - 1][i] & 0xff] ^ (tables[k - 1][i] >> 8);
    }
  }
  return tables;
}();

uint64_t UpdateByTables(uint64_t crc, std::span<const uint8_t> data) {
  const uint8_t* p = data.data();
  size_t left = data.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    crc ^= word;
    crc = kTables[7][crc & 0xff] ^ kTables[6][(crc >> 8) & 0xff] ^ kTables[5][(crc >> 16) & 0xff] ^
          kTables[4][(crc >> 24) & 0xff] ^ kTables[3][(crc >> 32) & 0xff] ^
          kTables[2][(crc >> 40) & 0xff] ^ kTables[1][(crc >> 48) & 0xff] ^ kTables[0][crc >> 56];
  }
  for (; left > 0; --left, ++p) crc = kTables[0][(crc ^ *p) & 0xff] ^ (crc >> 8);
  return crc;
}

#if defined(__x86_64__)

// Folding (carry-less products): 16 bytes are a polynomial of degree < 128, whose first 8 bytes have the higher powers. Moving them d bits
// further up the message is multiplying by x^d; modulo the CRC's polynomial each half is one product with a constant of 64 bits:
// x^(d+64) for the first half and x^d for the second. The product of two reflected words has one factor x too many, hence d - 1.
constexpr uint64_t PowerOfX(unsigned n) {
  uint64_t power = uint64_t{1} << 63;
  for (; n > 0; --n) power = (power >> 1) ^ ((power & 1) != 0 ? kPolynomial : 0);
  return power;
}

constexpr size_t kWords = 8;  // independent sums under way: enough to hide the latency of a product
constexpr size_t kStride = kWords * 16;
constexpr size_t kFoldMin = 2 * kStride;  // below that the tables are as fast

#define HEADRACE_FOLD_TARGET __attribute__((target("pclmul,sse2")))

HEADRACE_FOLD_TARGET inline __m128i Fold(__m128i sum, __m128i constants, __m128i next) {
  return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(sum, constants, 0x00), _mm_clmulepi64_si128(sum, constants, 0x11)), next);
}

template <unsigned kBits>
HEADRACE_FOLD_TARGET inline __m128i Constants() {
  constexpr uint64_t kFirstHalf = PowerOfX(kBits + 64 - 1);
  constexpr uint64_t kSecondHalf = PowerOfX(kBits - 1);
  return _mm_set_epi64x(static_cast<int64_t>(kSecondHalf), static_cast<int64_t>(kFirstHalf));
}

HEADRACE_FOLD_TARGET inline __m128i Load(const uint8_t* p, size_t i) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + i);
}

// REQUIRES: data.size() >= kFoldMin.
HEADRACE_FOLD_TARGET uint64_t UpdateByFolding(uint64_t crc, std::span<const uint8_t> data) {
  const uint8_t* p = data.data();
  size_t left = data.size();
  __m128i sums[kWords];
  for (size_t i = 0; i < kWords; ++i) sums[i] = Load(p, i);
  sums[0] = _mm_xor_si128(sums[0], _mm_set_epi64x(0, static_cast<int64_t>(crc)));
  const __m128i far = Constants<8 * kStride>();
  for (p += kStride, left -= kStride; left >= kStride; p += kStride, left -= kStride) {
#pragma GCC unroll 8
    for (size_t i = 0; i < kWords; ++i) sums[i] = Fold(sums[i], far, Load(p, i));
  }
  const __m128i near = Constants<128>();
  for (size_t i = 1; i < kWords; ++i) sums[i] = Fold(sums[i - 1], near, sums[i]);
  uint8_t folded[16];  // stands for all bytes so far
  _mm_storeu_si128(reinterpret_cast<__m128i*>(folded), sums[kWords - 1]);
  return UpdateByTables(UpdateByTables(0, folded), {p, left});
}

bool CanFold() {
  static const bool can = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_PCLMUL) != 0;
  }();
  return can;
}

#else
constexpr size_t kFoldMin = 0;
constexpr bool CanFold() { return false; }
uint64_t UpdateByFolding(uint64_t crc, std::span<const uint8_t>) { return crc; }
#endif

}  // namespace

void Crc64::Update(std::span<const uint8_t> data) {
  const bool fold = engine_ == Engine::kFastest && data.size() >= kFoldMin && CanFold();
  state_ = fold ? UpdateByFolding(state_, data) : UpdateByTables(state_, data);
}

}  // namespace headrace::format
