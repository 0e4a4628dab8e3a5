// Goal: whoever reads README.md knows every command and option, and none that does not exist.
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "snapshotter/cli/command_line.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

std::string Readme() {
  auto text = ReadFile(std::string(HEADRACE_SOURCE_DIR) + "/snapshotter/cli/README.md", 1 << 20);
  EXPECT_OK(text);
  return text.ok() ? *text : "";
}

std::set<std::string> OptionsIn(const std::string& text) {
  std::set<std::string> words;
  const std::regex option("--[a-z][a-z-]*[a-z]");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), option); it != std::sregex_iterator(); ++it) words.insert(it->str());
  return words;
}

TEST(CommandsTest, EveryCommandAndOptionIsDocumented) {
  const std::string readme = Readme();
  const std::set<std::string> documented = OptionsIn(readme);
  size_t options = 0;
  for (const auto& [command, words] : ListCommands()) {
    // Its own line or row, or the list of subcommands of a group.
    const bool named = std::regex_search(readme, std::regex("headrace " + std::regex_replace(command, std::regex(" "), " +") + "\\b"));
    EXPECT_TRUE(named) << "headrace " << command;
    for (const std::string& word : words) {
      if (!word.starts_with("--") || word == "--help") continue;
      ++options;
      EXPECT_TRUE(documented.contains(word)) << "headrace " << command << " " << word;
    }
  }
  EXPECT_GT(options, 40u) << "the commands were not found";
}

TEST(CommandsTest, NoOptionIsDocumentedThatDoesNotExist) {
  std::set<std::string> known = {"--help", "--version"};
  for (const auto& [command, words] : ListCommands()) known.insert(words.begin(), words.end());
  for (const std::string& word : OptionsIn(Readme())) EXPECT_TRUE(known.contains(word)) << word;
}

}  // namespace
}  // namespace headrace::cli
