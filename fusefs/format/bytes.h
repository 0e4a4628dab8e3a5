// Little-endian integers at the end of byte strings, and zstd's skippable frame header (RFC 8878 section 3.1.2). Internal to format/.
#ifndef HEADRACE_FUSEFS_FORMAT_BYTES_H_
#define HEADRACE_FUSEFS_FORMAT_BYTES_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fusefs/base/little_endian.h"

namespace headrace::format {

inline constexpr uint32_t kSkippableMagicChunked = 0x184D2A50;  // zstd:chunked trailer
inline constexpr uint32_t kSkippableMagicSeek = 0x184D2A5E;     // seek table
inline constexpr uint64_t kSkippableHeaderSize = 8;

inline void AppendLe32(std::string& out, uint32_t value) {
  out.resize(out.size() + 4);
  StoreLe32(reinterpret_cast<uint8_t*>(out.data() + out.size() - 4), value);
}
inline void AppendLe64(std::string& out, uint64_t value) {
  out.resize(out.size() + 8);
  StoreLe64(reinterpret_cast<uint8_t*>(out.data() + out.size() - 8), value);
}

inline std::string SkippableHeader(uint32_t magic, uint32_t size) {
  std::string out;
  AppendLe32(out, magic);
  AppendLe32(out, size);
  return out;
}

inline std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_BYTES_H_
