// containerd's filter language. Input: filters, one a line; '"' and what a Go string may hold.
#include <string>
#include <vector>

#include "snapshotter/filter/filter.h"
#include "snapshotter/filter/scanner.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

using snapshotter::Filter;

std::optional<std::string> Field(const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "name") return "sha256:1234";
  if (path.size() == 2 && path[0] == "labels" && path[1] == "containerd.io/snapshot.ref") return "foo bar";
  return std::nullopt;
}

// Tokens are pieces of the input, in order, and the scanner comes to an end.
void CheckTokens(std::string_view text) {
  snapshotter::Scanner scanner(text);
  size_t end = 0;
  for (size_t n = 0;; ++n) {
    HEADRACE_CHECK(n <= text.size());
    const snapshotter::Token token = scanner.Scan();
    if (token.kind == snapshotter::TokenKind::kEnd || token.kind == snapshotter::TokenKind::kIllegal) return;
    if (token.kind == snapshotter::TokenKind::kOther) return;  // has no text; every parser stops there
    HEADRACE_CHECK(token.position >= end && !token.text.empty() && token.text.data() == text.data() + token.position);
    end = token.position + token.text.size();
    HEADRACE_CHECK(end <= text.size());
    if (token.kind == snapshotter::TokenKind::kQuoted) (void)snapshotter::Unquote(token.text).ok();
  }
}

}  // namespace

void FuzzFilter(Bytes data) {
  Input input(data);
  std::vector<std::string> filters;
  bool all_good = true, any = false;
  while (!input.empty() && filters.size() < 8) {
    filters.emplace_back(input.Line());
    CheckTokens(filters.back());
    auto one = Filter::Parse({filters.back()});
    all_good = all_good && one.ok();
    if (one.ok()) any = any || one->Match(Field);
    if (filters.back().empty()) HEADRACE_CHECK(one.ok() && one->Match(Field));
  }
  // Several filters are an OR of them, and one mistake is a mistake of all.
  auto together = Filter::Parse(filters);
  HEADRACE_CHECK(together.ok() == all_good);
  if (together.ok()) HEADRACE_CHECK(together->Match(Field) == (any || filters.empty()));
}

}  // namespace headrace::fuzz
