// The form of the sources that no compiler checks: length of lines, functions and files, words that mark
// unfinished work, include guards, and the paths of includes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "test/tidy/source_files.h"

namespace headrace::test {
namespace {

constexpr size_t kLineBytesMax = 120;  // .clang-format aims at 100; comments and literals may need a little more
// Folders whose lines have not been brought below that yet; the list only gets shorter.
const char* const kWideFolders[] = {
    "config/", "fusefs/base/", "fusefs/cache/", "fusefs/daemon/", "fusefs/format/", "fusefs/kernel/",
    "fusefs/registry/", "fusefs/stream/", "integration/", "snapshotter/", "test/base/", "test/bench/", "test/cache/",
    "test/cli/", "test/config/", "test/daemon/", "test/format/", "test/fuzz/", "test/kernel/", "test/registry/",
    "test/snapshotter/", "test/stream/", "test/support/fake_"};
constexpr size_t kWideLineBytesMax = 200;
constexpr size_t kFunctionLinesMax = 70;
constexpr size_t kFileLinesMax = 500;
constexpr size_t kTestFileLinesMax = 800;

// Written in pieces, so that this file does not find itself.
const char* const kBannedWords[] = {"TO" "DO", "FIX" "ME", "XX" "X", "HA" "CK"};

bool IsWordAt(const std::string& line, size_t at, size_t size) {
  auto letter = [&](size_t i) {
    return i < line.size() && (std::isalnum(static_cast<unsigned char>(line[i])) || line[i] == '_');
  };
  return !(at > 0 && letter(at - 1)) && !letter(at + size);
}

// Goal: lines fit on a screen. Method: bytes, which is columns but for the rare character outside ASCII.
TEST(TidyTest, LineLength) {
  for (const SourceFile& file : ReadSources()) {
    const bool wide = std::any_of(std::begin(kWideFolders), std::end(kWideFolders),
                                  [&](const char* folder) { return file.path.starts_with(folder); });
    for (size_t i = 0; i < file.lines.size(); ++i) {
      EXPECT_LE(file.lines[i].size(), wide ? kWideLineBytesMax : kLineBytesMax) << file.path << ":" << i + 1;
    }
  }
}

// Goal: a file is about one thing.
TEST(TidyTest, FileLength) {
  const auto files = ReadSources();
  EXPECT_GT(files.size(), 20u) << "the sources were not found";
  for (const SourceFile& file : files) {
    EXPECT_LE(file.lines.size(), file.is_test() ? kTestFileLinesMax : kFileLinesMax) << file.path;
  }
}

// Body of a function: first and last line, counted from 0.
struct Body {
  size_t first;
  size_t last;
};

size_t IndentOf(const std::string& code) {
  const size_t indent = code.find_first_not_of(' ');
  return indent == std::string::npos ? SIZE_MAX : indent;
}

bool IsType(const std::string& code) {
  static const char* const kWords[] = {"namespace", "class ", "struct ", "enum ", "union "};
  const std::string text = code.substr(std::min(IndentOf(code), code.size()));
  return std::any_of(std::begin(kWords), std::end(kWords), [&](const char* word) { return text.starts_with(word); }) &&
         text.find('(') == std::string::npos;
}

// Functions of a file, by its style: a head begins in column 0 or 2, has parentheses and ends with an opening
// brace; the body ends with a closing brace in the column where the head began.
std::vector<Body> FindFunctions(const std::vector<std::string>& lines) {
  std::vector<Body> bodies;
  std::vector<std::string> code;
  bool in_comment = false;
  for (const std::string& line : lines) {
    code.push_back(CodeOnly(line, in_comment));
    code.back().erase(code.back().find_last_not_of(' ') + 1);
  }
  for (size_t i = 0; i < code.size(); ++i) {
    if (!code[i].ends_with('{') || code[i].find(')') == std::string::npos) continue;
    size_t head = i;
    while (head > 0 && IndentOf(code[head]) > 2) --head;
    if (IsType(code[head])) continue;
    const std::string end = std::string(std::min<size_t>(IndentOf(code[head]), 2), ' ') + "}";
    size_t last = i + 1;
    while (last < code.size() && !code[last].starts_with(end)) ++last;
    bodies.push_back({head, last});
    i = last;
  }
  return bodies;
}

// Goal: a function can be seen at once.
TEST(TidyTest, FunctionLength) {
  size_t functions = 0;
  for (const SourceFile& file : ReadSources()) {
    for (const Body& body : FindFunctions(file.lines)) {
      ++functions;
      EXPECT_LE(body.last + 1 - body.first, kFunctionLinesMax) << file.path << ":" << body.first + 1;
    }
  }
  EXPECT_GT(functions, 200u) << "functions were not recognised";
}

// Goal: no wait, pause, deadline or lifetime goes wrong when somebody sets the clock. Method: the wall clock is asked
// only where it must be, and the reason stands here.
TEST(TidyTest, WaitsAreByTheSteadyClock) {
  const std::map<std::string, std::string> reasons = {
      {"fusefs/cache/evictor.cc", "how long ago a content was used: times of files are in the wall clock"},
      {"fusefs/daemon/control_service.cc", "gRPC takes deadlines in the wall clock and makes them steady at once"},
      {"snapshotter/cli/node/doctor.cc", "whether that clock is right is the question"},
      {"snapshotter/cli/node_client.cc", "gRPC"},
      {"snapshotter/keychain/cri_proxy.cc", "gRPC"},
      {"snapshotter/layers/control_client.cc", "gRPC"},
      {"snapshotter/service/snapshots_service.cc", "gRPC: the deadline of a call, made a duration at once"},
      {"snapshotter/main.cc", "gRPC"},
      {"snapshotter/store/meta_store.cc", "when a snapshot was made, for people"},
  };
  const char* const clocks[] = {"system_clock", "high_resolution_clock", "CLOCK_REALTIME",        "gettimeofday",
                                "time(nullptr)", "time(NULL)",           "pthread_cond_timedwait"};
  std::set<std::string> seen;
  for (const SourceFile& file : ReadSources()) {
    const std::string folder = file.path.substr(0, file.path.find('/'));
    if (folder != "fusefs" && folder != "snapshotter" && folder != "config") continue;
    bool in_comment = false;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string code = CodeOnly(file.lines[i], in_comment);
      for (const char* clock : clocks) {
        if (code.find(clock) == std::string::npos) continue;
        seen.insert(file.path);
        EXPECT_TRUE(reasons.contains(file.path)) << file.path << ":" << i + 1 << " asks the wall clock: " << clock;
      }
    }
  }
  for (const auto& [path, reason] : reasons) EXPECT_TRUE(seen.contains(path)) << path << ": off the list";
}

// Goal: the measure of functions measures. Method: heads of one and of several lines, in a class and outside,
// around blocks.
TEST(TidyTest, FunctionsAreRecognised) {
  const std::vector<Body> bodies = FindFunctions({
      "class A {",                       // 0
      "  int b() {  // why",             // 1
      "    if (x) {",                    // 2
      "    }",                           // 3
      "  }",                             // 4
      "  struct C {",                    // 5
      "    int d() { return 1; }",       // 6
      "  };",                            // 7
      "};",                              // 8
      "Result<int> F(int a,",            // 9
      "              int b) {",          // 10
      "  return \"}\";",                 // 11
      "}",                               // 12
      "A::A(int x)",                     // 13
      "    : x_(x) {",                   // 14
      "}",                               // 15
  });
  ASSERT_EQ(bodies.size(), 3u);
  EXPECT_EQ(bodies[0].first, 1u);
  EXPECT_EQ(bodies[0].last, 4u);
  EXPECT_EQ(bodies[1].first, 9u);
  EXPECT_EQ(bodies[1].last, 12u);
  EXPECT_EQ(bodies[2].first, 13u);
  EXPECT_EQ(bodies[2].last, 15u);
}

// Goal: unfinished work is an issue, not a word in a comment.
TEST(TidyTest, NoUnfinishedWork) {
  for (const SourceFile& file : ReadSources()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (const std::string word : kBannedWords) {
        const size_t at = file.lines[i].find(word);
        EXPECT_FALSE(at != std::string::npos && IsWordAt(file.lines[i], at, word.size())) << file.path << ":" << i + 1;
      }
      EXPECT_EQ(file.lines[i].find('\t'), std::string::npos) << file.path << ":" << i + 1 << ": tab";
      EXPECT_FALSE(file.lines[i].ends_with(' ')) << file.path << ":" << i + 1 << ": space at the end";
    }
  }
}

// Goal: a header can be included twice, and says first what it is.
TEST(TidyTest, HeadersHaveGuardAndComment) {
  for (const SourceFile& file : ReadSources()) {
    if (!file.path.ends_with(".h")) continue;
    std::string guard = "HEADRACE_" + file.path + "_";
    for (char& c : guard) c = std::isalnum(static_cast<unsigned char>(c)) ? static_cast<char>(std::toupper(c)) : '_';
    bool found = false;
    for (const std::string& line : file.lines) found = found || line == "#ifndef " + guard;
    EXPECT_TRUE(found) << file.path << " has no guard " << guard;
    EXPECT_TRUE(!file.lines.empty() && file.lines[0].starts_with("//")) << file.path << " begins without a comment";
  }
}

// Goal: the helper of these tests tells code from comments and literals.
TEST(TidyTest, CodeOnly) {
  bool in_comment = false;
  EXPECT_EQ(CodeOnly("a = \"x // y\\\" {\"; // {", in_comment), "a = \"\"; ");
  EXPECT_EQ(CodeOnly("b /* { */ = '{' + 1'000;", in_comment), "b  = '' + 1'000;");
  EXPECT_EQ(CodeOnly("c /* begins", in_comment), "c ");
  EXPECT_TRUE(in_comment);
  EXPECT_EQ(CodeOnly("ends */ d", in_comment), " d");
}

}  // namespace
}  // namespace headrace::test
