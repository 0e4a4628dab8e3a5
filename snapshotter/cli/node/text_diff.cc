#include "snapshotter/cli/node/text_diff.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

namespace headrace::cli {
namespace {

constexpr size_t kAround = 3;
// The middle part that is compared line by line is a table of that many cells at most.
constexpr size_t kCellsMax = 4'000'000;

struct Line {
  char kind;  // ' ', '-', '+'
  std::string_view text;
};

std::vector<std::string_view> LinesOf(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return lines;
}

// Longest common subsequence, by the table of lengths.
std::vector<Line> Compare(const std::vector<std::string_view>& a, const std::vector<std::string_view>& b) {
  std::vector<Line> out;
  if (a.size() * b.size() > kCellsMax) {
    for (std::string_view line : a) out.push_back({'-', line});
    for (std::string_view line : b) out.push_back({'+', line});
    return out;
  }
  const size_t width = b.size() + 1;
  std::vector<uint32_t> length((a.size() + 1) * width);
  for (size_t i = a.size(); i-- > 0;) {
    for (size_t j = b.size(); j-- > 0;) {
      const size_t at = i * width + j;
      length[at] = a[i] == b[j] ? length[at + width + 1] + 1 : std::max(length[at + width], length[at + 1]);
    }
  }
  for (size_t i = 0, j = 0; i < a.size() || j < b.size();) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      out.push_back({' ', a[i]});
      ++i, ++j;
    } else if (i < a.size() && (j == b.size() || length[(i + 1) * width + j] >= length[i * width + j + 1])) {
      out.push_back({'-', a[i++]});
    } else {
      out.push_back({'+', b[j++]});
    }
  }
  return out;
}

std::string Range(size_t begin, size_t count) {
  return std::to_string(count == 0 ? begin : begin + 1) + (count == 1 ? "" : "," + std::to_string(count));
}

}  // namespace

std::string TextDiff(const std::string& before_name, const std::string& before, const std::string& after_name, const std::string& after) {
  if (before == after) return "";
  const std::vector<Line> lines = Compare(LinesOf(before), LinesOf(after));
  std::string out = "--- " + before_name + "\n+++ " + after_name + "\n";
  size_t old_line = 0, new_line = 0;
  for (size_t begin = 0; begin < lines.size();) {
    size_t change = begin;
    while (change < lines.size() && lines[change].kind == ' ') ++change;
    if (change == lines.size()) break;
    const size_t first = std::max(begin, change - std::min(change, kAround));
    old_line += first - begin, new_line += first - begin;
    // The hunk ends where more lines are equal than two changes may have between them.
    size_t end = change, equal = 0;
    while (end < lines.size() && equal <= 2 * kAround) equal = lines[end++].kind == ' ' ? equal + 1 : 0;
    end -= equal > kAround ? equal - kAround : 0;
    std::string body;
    size_t old_count = 0, new_count = 0;
    for (size_t i = first; i < end; ++i) {
      old_count += lines[i].kind != '+', new_count += lines[i].kind != '-';
      body += lines[i].kind + std::string(lines[i].text);
      if (!body.ends_with('\n')) body += "\n\\ No newline at end of file\n";
    }
    out += "@@ -" + Range(old_line, old_count) + " +" + Range(new_line, new_count) + " @@\n" + body;
    old_line += old_count, new_line += new_count;
    begin = end;
  }
  return out;
}

}  // namespace headrace::cli
