// Little-endian integers in memory, as all our formats have them, on any machine. Nothing is aligned; the room is the caller's care.
#ifndef HEADRACE_FUSEFS_BASE_LITTLE_ENDIAN_H_
#define HEADRACE_FUSEFS_BASE_LITTLE_ENDIAN_H_

#include <cstdint>

namespace headrace {

inline uint32_t LoadLe32(const uint8_t* bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= uint32_t{bytes[i]} << (8 * i);
  return value;
}
inline uint64_t LoadLe64(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}
inline void StoreLe32(uint8_t* bytes, uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
}
inline void StoreLe64(uint8_t* bytes, uint64_t value) {
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_LITTLE_ENDIAN_H_
