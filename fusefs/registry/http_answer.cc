#include "fusefs/registry/http_answer.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "fusefs/base/text.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/url.h"

namespace headrace::registry {
namespace {

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\r\n").find(text.front()) != std::string_view::npos) text.remove_prefix(1);
  while (!text.empty() && std::string_view(" \t\r\n").find(text.back()) != std::string_view::npos) text.remove_suffix(1);
  return text;
}

struct ContentRange {
  uint64_t begin = 0;
  uint64_t end = 0;  // exclusive
};

// "bytes 0-99/1000" or "bytes 0-99/*".
std::optional<ContentRange> ParseContentRange(std::string_view text) {
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  size_t dash = text.find('-');
  size_t slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash) return std::nullopt;
  Result<uint64_t> first = ParseU64(text.substr(0, dash));
  Result<uint64_t> last = ParseU64(text.substr(dash + 1, slash - dash - 1));
  std::string_view total_text = text.substr(slash + 1);
  Result<uint64_t> total = total_text == "*" ? std::numeric_limits<uint64_t>::max() : ParseU64(total_text);
  if (!first.ok() || !last.ok() || !total.ok() || *last < *first || *last >= *total) return std::nullopt;
  return ContentRange{*first, *last + 1};
}

}  // namespace

bool HttpHead::AddLine(std::string_view line) {
  line = Trim(line);
  if (line.starts_with("HTTP/")) {
    *this = {};
    size_t space = line.find(' ');
    Result<uint64_t> code = ParseU64(space == std::string_view::npos ? "" : line.substr(space + 1, 3));
    status = code.ok() ? static_cast<int>(*code) : 0;
    return false;
  }
  if (line.empty()) return true;
  size_t colon = line.find(':');
  if (colon == std::string_view::npos) return false;
  std::string name = Lower(Trim(line.substr(0, colon)));
  std::string value(Trim(line.substr(colon + 1)));
  Result<uint64_t> length = name == "content-length" ? ParseU64(value) : Result<uint64_t>(NotFoundError(""));
  if (length.ok()) content_length = *length;
  headers.emplace_back(std::move(name), std::move(value));
  return false;
}

const std::string* HttpHead::Find(std::string_view lower_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_name) return &value;
  }
  return nullptr;
}

std::vector<std::string> HttpHead::FindAll(std::string_view lower_name) const {
  std::vector<std::string> out;
  for (const auto& [name, value] : headers) {
    if (name == lower_name) out.push_back(value);
  }
  return out;
}

StatusCode CodeOfHttpStatus(int status) {
  switch (status) {
    case 400:
    case 405:
    case 406:
    case 415:
      return StatusCode::kInvalidArgument;
    case 401:
      return StatusCode::kUnauthenticated;
    case 403:
      return StatusCode::kPermissionDenied;
    case 404:
    case 410:
      return StatusCode::kNotFound;
    case 408:
    case 425:
      return StatusCode::kUnavailable;
    case 416:
      return StatusCode::kOutOfRange;
    case 429:
      return StatusCode::kResourceExhausted;
    case 501:
      return StatusCode::kUnimplemented;
    default:
      return status >= 500 ? StatusCode::kUnavailable : StatusCode::kFailedPrecondition;
  }
}

std::string ErrorDetail(std::string_view body) {
  auto json = nlohmann::json::parse(body, nullptr, false);
  if (!json.is_object()) return "";
  auto errors = json.find("errors");
  if (errors == json.end() || !errors->is_array() || errors->empty() || !errors->front().is_object()) return "";
  std::string out;
  for (const char* name : {"code", "message"}) {
    auto found = errors->front().find(name);
    if (found == errors->front().end() || !found->is_string()) continue;
    out += (out.empty() ? "" : ": ") + found->get<std::string>();
  }
  return CleanText(out, kErrorDetailBytesMax);
}

std::optional<std::chrono::milliseconds> ParseRetryAfter(const HttpHead& head) {
  const std::string* value = head.status >= 400 ? head.Find("retry-after") : nullptr;
  Result<uint64_t> seconds = value != nullptr ? ParseU64(*value) : Result<uint64_t>(NotFoundError(""));
  if (!seconds.ok()) return std::nullopt;
  return std::chrono::seconds(static_cast<int64_t>(std::min<uint64_t>(*seconds, kRetryAfterMax.count())));
}

std::string RangeText(uint64_t offset, uint64_t size) {
  return "bytes [" + std::to_string(offset) + ", " + (size == 0 ? "end" : std::to_string(offset + size)) + ")";
}

Status CheckRangeAnswer(const HttpHead& head, uint64_t offset, uint64_t size) {
  const std::string* coding = head.Find("content-encoding");
  if (coding != nullptr && *coding != "identity") {
    return InvalidArgumentError("the registry answered with content coding '" + CleanText(*coding, 40) +
                                "', which was not asked for");
  }
  if (head.status == 200) {
    if (offset == 0 && (size == 0 || head.content_length == size)) return OkStatus();
    return InvalidArgumentError("the registry ignores ranges: it answered 200 with the whole blob to a request for " +
                                RangeText(offset, size) + "; lazy reading needs a registry that serves ranges");
  }
  if (head.status != 206) return InvalidArgumentError("unexpected answer HTTP " + std::to_string(head.status));
  const std::string* header = head.Find("content-range");
  std::optional<ContentRange> range = header != nullptr ? ParseContentRange(*header) : std::nullopt;
  if (!range) return UnavailableError("an answer 206 without a valid Content-Range");
  if (range->begin != offset || (size != 0 && range->end != offset + size)) {
    return UnavailableError("the registry answered " + RangeText(range->begin, range->end - range->begin) + " to a request for " +
                            RangeText(offset, size));
  }
  if (head.content_length.value_or(range->end - range->begin) != range->end - range->begin) {
    return UnavailableError("an answer 206 whose Content-Length and Content-Range differ");
  }
  return OkStatus();
}

}  // namespace headrace::registry
