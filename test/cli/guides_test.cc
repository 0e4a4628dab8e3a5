// Goal: the guides name no command, option, setting, message or file that does not exist.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "fusefs/base/file.h"
#include "snapshotter/cli/command_line.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

namespace fs = std::filesystem;

struct Page {
  fs::path path;
  std::string text;
};

std::string Read(const fs::path& path) {
  auto text = ReadFile(path.string(), 8 << 20);
  EXPECT_OK(text);
  return text.ok() ? *text : "";
}

std::vector<Page> Pages() {
  const fs::path root = HEADRACE_SOURCE_DIR;
  std::vector<Page> pages;
  for (const char* folder : {"config/guides", "config/kubernetes", "config/containerd", "systemd", "systemd/images"}) {
    for (const auto& entry : fs::directory_iterator(root / folder)) {
      if (entry.path().extension() == ".md") pages.push_back({entry.path(), Read(entry.path())});
    }
  }
  pages.push_back({root / "README.md", Read(root / "README.md")});
  return pages;
}

std::vector<std::smatch> AllMatches(const std::string& text, const std::regex& pattern) {
  return {std::sregex_iterator(text.begin(), text.end(), pattern), std::sregex_iterator()};
}

// What stands in code spans and fenced blocks, a line each.
std::vector<std::string> CodeLines(const std::string& text) {
  std::vector<std::string> lines;
  bool fenced = false;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("```")) {
      fenced = !fenced;
    } else if (fenced) {
      lines.push_back(line);
    } else {
      for (const std::smatch& span : AllMatches(line, std::regex("`([^`]+)`"))) lines.push_back(span[1]);
    }
  }
  return lines;
}

TEST(GuidesTest, CommandsAndOptionsExist) {
  const auto commands = ListCommands();
  std::set<std::string> first_words;
  for (const auto& [command, words] : commands) first_words.insert(command.substr(0, command.find(' ')));
  size_t checked = 0;
  for (const Page& page : Pages()) {
    for (const std::string& line : CodeLines(page.text)) {
      for (const std::smatch& call : AllMatches(line, std::regex("(?:^|[ /])headrace ([a-z]+)(?: ([a-z]+))?([^&;|#]*)"))) {
        ++checked;
        EXPECT_TRUE(first_words.contains(call[1])) << page.path << ": " << line;
        const auto group = commands.find(call[1].str() + " " + call[2].str());
        const auto command = group != commands.end() ? group : commands.find(call[1]);
        if (command == commands.end()) continue;  // `headrace cache`, the group alone
        const std::string arguments = call[2].str() + call[3].str();
        for (const std::smatch& option : AllMatches(arguments, std::regex("(?:^|[ \\[])(--[a-z][a-z-]*)"))) {
          const bool known = option[1] == "--help" || std::find(command->second.begin(), command->second.end(), option[1].str()) != command->second.end();
          EXPECT_TRUE(known) << page.path << ": " << line << " has " << option[1];
        }
      }
    }
  }
  EXPECT_GT(checked, 40u) << "the commands were not found";
}

TEST(GuidesTest, SettingsExist) {
  const std::string table = config::DocumentationTable();
  std::set<std::string> sections;
  for (const std::smatch& row : AllMatches(table, std::regex("\\| ([a-z]+) \\| `"))) sections.insert(row[1]);
  size_t checked = 0;
  for (const Page& page : Pages()) {
    for (const std::string& line : CodeLines(page.text)) {
      const std::regex setting("^([a-z]+)\\.([a-z_]+)(?: = .*)?$");
      std::smatch parts;
      if (!std::regex_match(line, parts, setting) || !sections.contains(parts[1])) continue;
      if (parts[2] == "h" || parts[2] == "cc" || parts[2] == "toml") continue;
      ++checked;
      EXPECT_NE(table.find("| " + parts[1].str() + " | `" + parts[2].str() + "` |"), std::string::npos) << page.path << ": " << line;
    }
  }
  EXPECT_GT(checked, 25u) << "the settings were not found";
}

TEST(GuidesTest, LinkedFilesExist) {
  size_t checked = 0;
  for (const Page& page : Pages()) {
    for (const std::smatch& link : AllMatches(page.text, std::regex("\\]\\(([^)#:]+)\\)"))) {
      ++checked;
      EXPECT_TRUE(fs::exists(page.path.parent_path() / link[1].str())) << page.path << " links to " << link[1];
    }
  }
  EXPECT_GT(checked, 30u) << "the links were not found";
}

// The messages are in the sources as they are written in the guide, so that one can search for them. String literals that are continued on the next line are joined.
TEST(GuidesTest, MessagesAreThoseOfTheDaemons) {
  const fs::path root = HEADRACE_SOURCE_DIR;
  std::string sources;
  for (const char* folder : {"fusefs", "snapshotter"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.path().extension() == ".cc") sources += Read(entry.path());
    }
  }
  sources = std::regex_replace(sources, std::regex("\"\\s*\n\\s*\""), "");
  sources = std::regex_replace(sources, std::regex("\\\\\""), "\"");
  const std::string text = Read(root / "config/guides/troubleshooting.md");
  const size_t begin = text.find("## In the journal"), end = text.find("## In a pod");
  ASSERT_LT(begin, end);
  const std::string journal = text.substr(begin, end - begin);
  size_t checked = 0;
  for (const std::smatch& row : AllMatches(journal, std::regex("\n\\| `([^`]+)`"))) {
    ++checked;
    EXPECT_NE(sources.find(row[1]), std::string::npos) << "no source has: " << row[1];
  }
  EXPECT_GT(checked, 15u);
}

}  // namespace
}  // namespace headrace::cli
