// What the head of an HTTP answer says, and what follows from it: the parsers of everything that a server sends beside the bytes that were asked for.
// Pure functions and values; any input is fine. Bounds on sizes are the caller's (limits.h), but for the words that go into messages.
#ifndef HEADRACE_FUSEFS_REGISTRY_HTTP_ANSWER_H_
#define HEADRACE_FUSEFS_REGISTRY_HTTP_ANSWER_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::registry {

struct HttpHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::optional<uint64_t> content_length;

  // Takes the next line of the head, with its line end; a status line begins anew. True: it was the empty line at the end.
  bool AddLine(std::string_view line);
  // First value of that name; nullptr if absent.
  const std::string* Find(std::string_view lower_name) const;
  std::vector<std::string> FindAll(std::string_view lower_name) const;
};

// Status code of an HTTP status code that is an error.
StatusCode CodeOfHttpStatus(int status);
// The words in a registry's error answer ({"errors":[{"code","message"}]}), cleaned; "" if none.
std::string ErrorDetail(std::string_view body);
// "Retry-After" of an error, in seconds (dates are not worth the trouble); cut to kRetryAfterMax.
std::optional<std::chrono::milliseconds> ParseRetryAfter(const HttpHead& head);
// "bytes [0, 100)", "bytes [10, end)" (size 0).
std::string RangeText(uint64_t offset, uint64_t size);
// What a 206 for [offset, offset + size) must say; a 200 passes only if it is exactly the asked bytes. size 0: up to the end of the blob.
Status CheckRangeAnswer(const HttpHead& head, uint64_t offset, uint64_t size);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_HTTP_ANSWER_H_
