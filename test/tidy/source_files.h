// The project's own C++ sources, as the tests of their form read them. Blocks on the disk.
#ifndef HEADRACE_TEST_TIDY_SOURCE_FILES_H_
#define HEADRACE_TEST_TIDY_SOURCE_FILES_H_

#include <string>
#include <vector>

namespace headrace::test {

struct SourceFile {
  std::string path;                // relative to the root of the source tree
  std::vector<std::string> lines;  // without newlines
  bool is_test() const { return path.starts_with("test/") || path.starts_with("integration/"); }
};

// Every .h and .cc under the project's folders, sorted by path.
std::vector<SourceFile> ReadSources();

// The line with comments and string and character literals blanked out (their quotes stay). `in_comment`
// carries a block comment from line to line. Raw strings that span lines are not known to it.
std::string CodeOnly(const std::string& line, bool& in_comment);

}  // namespace headrace::test

#endif  // HEADRACE_TEST_TIDY_SOURCE_FILES_H_
