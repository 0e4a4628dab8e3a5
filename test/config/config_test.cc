// Goal: the file means what it says, mistakes are found with the line and a way out, and the shipped documents match the table.
// HEADRACE_UPDATE=1 rewrites the shipped documents instead of comparing them.
#include "config/config.h"

#include <cstdlib>

#include "fusefs/base/file.h"
#include "test/support/matchers.h"

namespace headrace::config {
namespace {

TEST(ConfigTest, DefaultsAndOverrides) {
  Result<Config> config = ParseConfig("[stream]\nread_deadline = \"90s\"\n[registry]\nplain_http = [\"a:1\", \"b\"]\n"
                                      "[fused]\nfuse_threads = 8\nread_ahead = \"16MiB\"\n", "x.toml");
  ASSERT_OK(config);
  EXPECT_EQ(config->fused.read_deadline, std::chrono::seconds(90));
  EXPECT_EQ(config->fused.plain_http, (TextList{"a:1", "b"}));
  EXPECT_EQ(config->fused.fuse_threads, 8u);
  EXPECT_EQ(config->fused.read_ahead, 16u << 20);
  EXPECT_EQ(config->fused.small_file, 4u << 20);
  EXPECT_EQ(config->snapshotter.mount_deadline, std::chrono::seconds(30));
}

TEST(ConfigTest, MistakesNameFileLineAndNearestKey) {
  Result<Config> config = ParseConfig("[stream]\n\nread_dedline = \"90s\"\n", "x.toml");
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().message(), "x.toml:3: there is no key 'read_dedline' in [stream]; did you mean 'read_deadline'?");
  EXPECT_CODE(ParseConfig("[strem]\n", "x"), StatusCode::kInvalidArgument);
  EXPECT_CODE(ParseConfig("[stream]\nread_deadline = \"1ms\"\n", "x"), StatusCode::kInvalidArgument);
  EXPECT_CODE(ParseConfig("[stream]\nread_deadline = -3\n", "x"), StatusCode::kInvalidArgument);
  EXPECT_CODE(ParseConfig("[stream]\nread_deadline = [\"1s\"]\n", "x"), StatusCode::kInvalidArgument);
  EXPECT_CODE(ParseConfig("[fused]\nroot = true\n", "x"), StatusCode::kInvalidArgument);
  EXPECT_CODE(ParseConfig("[fused\n", "x"), StatusCode::kInvalidArgument);
  EXPECT_CODE(LoadConfig("/nonexistent/headrace.toml"), StatusCode::kNotFound);
}

// Goal: each kind of mistake is said with file, line, key and what would be right.
TEST(ConfigTest, EveryMistakeNamesFileKeyAndFix) {
  struct Mistake {
    const char* text;
    const char* where;
    const char* fix;
  };
  const Mistake mistakes[] = {
      {"[strem]\n", "headrace.toml:1: there is no section [strem]", "did you mean [stream]?"},
      {"[stream]\nread_dedline = \"90s\"\n", "headrace.toml:2: there is no key 'read_dedline' in [stream]", "did you mean 'read_deadline'?"},
      {"[stream]\nread_deadline = \"1ms\"\n", "headrace.toml:2: stream.read_deadline", "must lie between 1s and 24h"},
      {"[stream]\nread_deadline = \"soon\"\n", "headrace.toml:2: stream.read_deadline", "write it like"},
      {"[fused]\n\nfuse_threads = 100\n", "headrace.toml:3: fused.fuse_threads", "must lie between 1 and 64"},
      {"[stream]\nrange_max = \"8 apples\"\n", "headrace.toml:2: stream.range_max", "write it like"},
      {"[stream]\nrange_max = -3\n", "headrace.toml:2: stream.range_max", "takes a string or a number that is not negative"},
      {"[stream]\nread_deadline = [\"1s\"]\n", "headrace.toml:2: stream.read_deadline", "takes one value, not a list"},
      {"[registry]\nplain_http = [1]\n", "headrace.toml:2: registry.plain_http", "takes a list of strings"},
      {"[fused]\nroot = true\n", "headrace.toml:2: fused.root", "takes a string"},
      {"[stream]\nafter_deadline = \"never\"\n", "headrace.toml:2: stream.after_deadline", "must be one of \"eio\", \"wait\""},
      {"[layers]\nwithout_table = \"keep\"\n", "headrace.toml:2: layers.without_table", "must be one of \"stream\", \"leave\""},
      {"[snapshotter]\nlog_level = \"loud\"\n", "headrace.toml:2: snapshotter.log_level", "must be one of \"trace\", \"debug\""},
      {"[fused\n", "headrace.toml:1: ", ""},
      {"[fused]\nroot = \"a\"\nroot = \"b\"\n", "headrace.toml:3: ", ""},
  };
  for (const Mistake& mistake : mistakes) {
    const Status status = ParseConfig(mistake.text, "/etc/headrace/headrace.toml").status();
    EXPECT_CODE(status, StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(mistake.where), std::string::npos) << mistake.text << status.message();
    EXPECT_NE(status.message().find(mistake.fix), std::string::npos) << mistake.text << status.message();
    EXPECT_TRUE(status.message().starts_with("/etc/headrace/headrace.toml")) << status.message();
  }
}

// Goal: a reload takes over what the document says, and names the rest.
TEST(ConfigTest, ChangedSettingsAndWhichOfThemAreReloaded) {
  FusedConfig before, after;
  EXPECT_TRUE(ChangedSettings(before, after).empty());
  after.budget = 1;
  after.plain_http = {"a"};
  EXPECT_EQ(ChangedSettings(before, after), (std::vector<std::string>{"registry.plain_http", "cache.budget"}));
  EXPECT_TRUE(IsReloadable("cache.budget"));
  EXPECT_TRUE(IsReloadable("fused.log_level"));
  EXPECT_TRUE(IsReloadable("stream.fill_rate"));
  EXPECT_FALSE(IsReloadable("registry.plain_http"));
}

TEST(ConfigTest, ShippedFilesMatchTheTable) {
  const std::string toml = std::string(HEADRACE_SOURCE_DIR) + "/config/headrace.toml";
  const std::string readme = std::string(HEADRACE_SOURCE_DIR) + "/config/README.md";
  if (std::getenv("HEADRACE_UPDATE") != nullptr) ASSERT_OK(WriteFileAtomic(toml, DefaultToml(), 0644));
  EXPECT_EQ(*ReadFile(toml, 1 << 20), DefaultToml()) << "run this test with HEADRACE_UPDATE=1";
  EXPECT_NE(ReadFile(readme, 1 << 20)->find(DocumentationTable()), std::string::npos) << DocumentationTable();
  EXPECT_OK(ParseConfig(DefaultToml(), "headrace.toml"));
}

}  // namespace
}  // namespace headrace::config
