#include "fusefs/format/crc64.h"

#include <array>
#include <bit>
#include <cstring>

namespace headrace::format {
namespace {

constexpr uint64_t kPolynomial = 0xD800000000000000;  // reflected
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

}  // namespace

void Crc64::Update(std::span<const uint8_t> data) {
  uint64_t crc = state_;
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
  state_ = crc;
}

}  // namespace headrace::format
