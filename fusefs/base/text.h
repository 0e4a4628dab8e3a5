// Text helpers: sizes and durations for people and from configuration ("4MiB", "5m"). Pure functions.
#ifndef HEADRACE_FUSEFS_BASE_TEXT_H_
#define HEADRACE_FUSEFS_BASE_TEXT_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace {

// "1.5 GiB", "312 B".
std::string HumanBytes(uint64_t bytes);
// "4MiB", "512KiB", "1GiB", "123" (bytes), "4MB" (decimal). No fractions, no overflow.
Result<uint64_t> ParseSize(std::string_view text);
// "500ms", "30s", "5m", "2h".
Result<std::chrono::nanoseconds> ParseDuration(std::string_view text);
std::vector<std::string_view> Split(std::string_view text, char separator);
// Whole string as a decimal number without sign; anything else is InvalidArgument.
Result<uint64_t> ParseU64(std::string_view text);
// Base64 (RFC 4648 section 4, with padding).
std::string Base64Encode(std::string_view data);
Result<std::string> Base64Decode(std::string_view text);

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_TEXT_H_
