// Heads of answers: lines, Content-Range, Content-Length, Retry-After; bodies of errors. Input: '0' and the head; '1' and the body of an error.
#include <algorithm>
#include <string>

#include "fusefs/registry/http_answer.h"
#include "fusefs/registry/limits.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

void CheckHead(const registry::HttpHead& head) {
  HEADRACE_CHECK(head.status >= 0 && head.status <= 999);
  for (const auto& [name, value] : head.headers) {
    HEADRACE_CHECK(std::none_of(name.begin(), name.end(), [](char c) { return c >= 'A' && c <= 'Z'; }));
    HEADRACE_CHECK(head.Find(name) != nullptr && !head.FindAll(name).empty());
    for (const std::string& text : {name, value}) {
      HEADRACE_CHECK(text.find('\n') == std::string::npos);
      HEADRACE_CHECK(text.empty() || (text.front() != ' ' && text.back() != ' ' && text.back() != '\r'));
    }
  }
  const auto pause = registry::ParseRetryAfter(head);
  if (pause) HEADRACE_CHECK(pause->count() >= 0 && *pause <= registry::kRetryAfterMax);
  if (head.status >= 300) HEADRACE_CHECK(registry::CodeOfHttpStatus(head.status) != StatusCode::kOk);
}

// Of all ranges that one may have asked for, the answer is right for one at most.
void CheckRanges(const registry::HttpHead& head) {
  constexpr uint64_t kOffset = 10, kSize = 5;
  const bool right = registry::CheckRangeAnswer(head, kOffset, kSize).ok();
  if (right) {
    HEADRACE_CHECK(head.status == 206 && head.Find("content-range") != nullptr);
    HEADRACE_CHECK(head.content_length.value_or(kSize) == kSize);
  }
  for (const uint64_t offset : {uint64_t{0}, kOffset, kOffset + 1}) {
    for (const uint64_t size : {kSize - 1, kSize, kSize + 1}) {
      const Status status = registry::CheckRangeAnswer(head, offset, size);
      HEADRACE_CHECK(IsPrintable(status.message()) && status.message().size() < 400);
      if (right && (offset != kOffset || size != kSize)) HEADRACE_CHECK(!status.ok());
    }
  }
  (void)registry::CheckRangeAnswer(head, kOffset, 0).ok();
}

}  // namespace

void FuzzHttpAnswer(Bytes data) {
  Input input(data);
  if (input.Choice(2) == 1) {
    const std::string words = registry::ErrorDetail(input.Text());
    HEADRACE_CHECK(IsPrintable(words) && words.size() <= registry::kErrorDetailBytesMax + 3);
    return;
  }
  registry::HttpHead head;
  while (!input.empty()) {
    const std::string line = std::string(input.Line()) + "\n";
    if (head.AddLine(line)) break;
  }
  CheckHead(head);
  CheckRanges(head);
}

}  // namespace headrace::fuzz
