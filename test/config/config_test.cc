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
