#include "test/tidy/source_files.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

namespace headrace::test {

std::vector<SourceFile> ReadSources() {
  namespace fs = std::filesystem;
  const fs::path root = HEADRACE_SOURCE_DIR;
  std::vector<SourceFile> files;
  for (const char* folder : {"config", "fusefs", "integration", "snapshotter", "test"}) {
    if (!fs::is_directory(root / folder)) continue;
    for (const fs::directory_entry& entry :
         fs::recursive_directory_iterator(root / folder, fs::directory_options::follow_directory_symlink)) {
      const std::string extension = entry.path().extension();
      if (!entry.is_regular_file() || (extension != ".h" && extension != ".cc")) continue;
      SourceFile file;
      file.path = entry.path().lexically_relative(root).string();
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) file.lines.push_back(line);
      files.push_back(std::move(file));
    }
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return files;
}

std::string CodeOnly(const std::string& line, bool& in_comment) {
  std::string code;
  for (size_t i = 0; i < line.size(); ++i) {
    const std::string two = line.substr(i, 2);
    if (in_comment) {
      if (two == "*/") {
        in_comment = false;
        ++i;
      }
      continue;
    }
    if (two == "//") break;
    if (two == "/*") {
      in_comment = true;
      ++i;
      continue;
    }
    const char c = line[i];
    const bool digit_separator = c == '\'' && i > 0 && std::isxdigit(static_cast<unsigned char>(line[i - 1])) != 0;
    code += c;
    if ((c != '"' && c != '\'') || digit_separator) continue;
    for (++i; i < line.size() && line[i] != c; ++i) i += line[i] == '\\';
    code += c;
  }
  return code;
}

}  // namespace headrace::test
