// Little-endian integers in byte strings, and zstd's skippable frame header (RFC 8878 section 3.1.2). Internal to format/.
#ifndef HEADRACE_FUSEFS_FORMAT_BYTES_H_
#define HEADRACE_FUSEFS_FORMAT_BYTES_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace headrace::format {

inline constexpr uint32_t kSkippableMagicChunked = 0x184D2A50;  // zstd:chunked trailer
inline constexpr uint32_t kSkippableMagicSeek = 0x184D2A5E;     // seek table
inline constexpr uint64_t kSkippableHeaderSize = 8;

inline void PutU32(std::string& out, uint32_t v) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<char>((v >> (8 * i)) & 0xff));
}
inline void PutU64(std::string& out, uint64_t v) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>((v >> (8 * i)) & 0xff));
}
// REQUIRES: 4 (8) bytes at `p`.
inline uint32_t GetU32(const uint8_t* p) {
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}
inline uint64_t GetU64(const uint8_t* p) { return GetU32(p) | uint64_t{GetU32(p + 4)} << 32; }

inline std::string SkippableHeader(uint32_t magic, uint32_t size) {
  std::string out;
  PutU32(out, magic);
  PutU32(out, size);
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
