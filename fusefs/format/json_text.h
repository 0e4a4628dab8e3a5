// Writing of JSON strings. Pure functions, internal to format/.
#ifndef HEADRACE_FUSEFS_FORMAT_JSON_TEXT_H_
#define HEADRACE_FUSEFS_FORMAT_JSON_TEXT_H_

#include <string>
#include <string_view>

namespace headrace::format {

bool IsUtf8(std::string_view text);
// Each byte that is not part of valid UTF-8 becomes U+FFFD: what a reader of AppendJsonString's text gets.
std::string Utf8Of(std::string_view text);
// Quoted and escaped; each byte that is not part of valid UTF-8 becomes U+FFFD.
void AppendJsonString(std::string& out, std::string_view text);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_JSON_TEXT_H_
