// Small texts inside the others: names of entries, times, sizes, durations, numbers, base64, digests. Input: which of them, the text.
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/text.h"
#include "fusefs/format/name.h"
#include "fusefs/format/rfc3339.h"
#include "test/fuzz/check_index.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckTime(std::string_view text) {
  auto time = format::ParseRfc3339(text);
  if (!time.ok()) return;
  HEADRACE_CHECK(time->nanoseconds < 1'000'000'000);
  const std::string written = format::FormatRfc3339(*time);
  auto again = format::ParseRfc3339(written);
  HEADRACE_CHECK(again.ok());
  if (time->seconds >= format::kRfc3339Min && time->seconds <= format::kRfc3339Max) HEADRACE_CHECK(*again == *time);
}

void CheckCleanName(std::string_view text) {
  auto name = format::CleanName(text);
  if (!name.ok()) return;
  CheckName(*name);
  auto again = format::CleanName(*name);
  HEADRACE_CHECK(again.ok() && *again == *name);
}

void CheckBase64(std::string_view text) {
  auto bytes = Base64Decode(text);
  if (!bytes.ok()) return;
  auto again = Base64Decode(Base64Encode(*bytes));
  HEADRACE_CHECK(again.ok() && *again == *bytes && bytes->size() <= text.size());
}

void CheckNumbers(std::string_view text) {
  auto number = ParseU64(text);
  if (number.ok()) HEADRACE_CHECK(text.ends_with(std::to_string(*number)));
  auto size = ParseSize(text);
  if (number.ok() && size.ok()) HEADRACE_CHECK(*number == *size);
  if (size.ok()) HEADRACE_CHECK(!HumanBytes(*size).empty());
  auto duration = ParseDuration(text);
  if (duration.ok()) HEADRACE_CHECK(duration->count() >= 0);
}

}  // namespace

void FuzzText(Bytes data) {
  Input input(data);
  switch (input.Choice(5)) {
    case 0: return CheckTime(input.Text());
    case 1: return CheckCleanName(input.Text());
    case 2: return CheckBase64(input.Text());
    case 3: return CheckNumbers(input.Text());
    default: {
      auto digest = Digest::Parse(input.Text());
      if (digest.ok()) HEADRACE_CHECK(digest->ToString() == input.Text());
    }
  }
}

}  // namespace headrace::fuzz
