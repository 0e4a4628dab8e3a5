#include "fusefs/base/text.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <limits>

namespace headrace {
namespace {

struct Unit {
  std::string_view suffix;
  uint64_t factor;
};

constexpr std::array<Unit, 11> kSizeUnits = {{{"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30},
                                              {"TiB", 1ull << 40}, {"KB", 1000ull}, {"MB", 1000000ull},
                                              {"GB", 1000000000ull}, {"TB", 1000000000000ull}, {"k", 1ull << 10},
                                              {"B", 1ull}, {"", 1ull}}};
constexpr std::array<Unit, 6> kTimeUnits = {{{"ns", 1ull}, {"us", 1000ull}, {"ms", 1000000ull}, {"s", 1000000000ull},
                                             {"m", 60000000000ull}, {"h", 3600000000000ull}}};

template <size_t N>
Result<uint64_t> ParseWithUnit(std::string_view text, const std::array<Unit, N>& units, std::string_view example) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  Result<uint64_t> number = ParseU64(text.substr(0, digits));
  std::string_view suffix = text.substr(digits);
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  for (const Unit& unit : units) {
    if (!number.ok() || suffix != unit.suffix) continue;
    if (*number > std::numeric_limits<uint64_t>::max() / unit.factor) break;
    return *number * unit.factor;
  }
  return InvalidArgumentError("'" + std::string(text.substr(0, 64)) + "' is not understood: write it like " +
                              std::string(example));
}

constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string HumanBytes(uint64_t bytes) {
  constexpr std::array<const char*, 6> kNames = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, unit == 0 ? "%.0f %s" : "%.1f %s", value, kNames[unit]);
  return buffer;
}

Result<uint64_t> ParseSize(std::string_view text) { return ParseWithUnit(text, kSizeUnits, "4MiB"); }

Result<std::chrono::nanoseconds> ParseDuration(std::string_view text) {
  HR_ASSIGN_OR_RETURN(uint64_t ns, ParseWithUnit(text, kTimeUnits, "30s, 5m or 500ms"));
  if (ns > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return InvalidArgumentError("'" + std::string(text) + "' is too long a time");
  }
  return std::chrono::nanoseconds(static_cast<int64_t>(ns));
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  for (;;) {
    size_t pos = text.find(separator);
    out.push_back(text.substr(0, pos));
    if (pos == std::string_view::npos) return out;
    text.remove_prefix(pos + 1);
  }
}

Result<uint64_t> ParseU64(std::string_view text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgumentError("'" + std::string(text.substr(0, 64)) + "' is not a number");
  }
  return value;
}

std::string Base64Encode(std::string_view data) {
  std::string out;
  out.reserve((data.size() + 2) / 3 * 4);
  for (size_t i = 0; i < data.size(); i += 3) {
    uint32_t word = 0;
    size_t n = data.size() - i < 3 ? data.size() - i : 3;
    for (size_t j = 0; j < 3; ++j) word = word << 8 | (j < n ? static_cast<uint8_t>(data[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= n ? kBase64[word >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

Result<std::string> Base64Decode(std::string_view text) {
  if (text.size() % 4 != 0) return InvalidArgumentError("base64 text has a wrong length");
  std::string out;
  for (size_t i = 0; i < text.size(); i += 4) {
    uint32_t word = 0;
    size_t padding = 0;
    for (size_t j = 0; j < 4; ++j) {
      char c = text[i + j];
      const char* found = c == '\0' ? nullptr : static_cast<const char*>(__builtin_strchr(kBase64, c));
      bool last = i + 4 == text.size();
      if (c == '=' && last && j >= 2) {
        ++padding;
      } else if (found == nullptr || padding > 0) {
        return InvalidArgumentError("base64 text has a character that does not belong there");
      }
      word = word << 6 | (found == nullptr ? 0u : static_cast<uint32_t>(found - kBase64));
    }
    for (size_t j = 0; j + padding < 3; ++j) out += static_cast<char>(word >> (16 - 8 * j) & 255);
  }
  return out;
}

}  // namespace headrace
