// Bytes that nothing compresses and that a test can make again: the same size and seed, the same bytes.
#ifndef HEADRACE_TEST_SUPPORT_NOISE_H_
#define HEADRACE_TEST_SUPPORT_NOISE_H_

#include <cstdint>
#include <string>

namespace headrace::test {

inline std::string Noise(size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  uint64_t x = seed * 0x9E3779B97F4A7C15ull + 1;
  for (char& c : bytes) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    c = static_cast<char>(x);
  }
  return bytes;
}

}  // namespace headrace::test

#endif  // HEADRACE_TEST_SUPPORT_NOISE_H_
