// Goal: operators find every metric documented, and no dashboard or alert asks for one that does not exist.
#include "fusefs/base/metrics.h"

#include <regex>
#include <set>
#include <string>

#include "fusefs/base/file.h"
#include "test/support/matchers.h"

namespace headrace {
namespace {

std::string Read(const std::string& path) {
  auto text = ReadFile(std::string(HEADRACE_SOURCE_DIR) + "/" + path, 4 << 20);
  EXPECT_OK(text);
  return text.ok() ? *text : "";
}

std::set<std::string> Exported() {
  std::set<std::string> names;
  const std::string text = Metrics().ToPrometheus();
  const std::regex type("# TYPE (headrace_[a-z0-9_]+) (counter|gauge)\n");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), type); it != std::sregex_iterator(); ++it) names.insert((*it)[1]);
  return names;
}

TEST(MetricsTest, EveryMetricIsDocumented) {
  EXPECT_GT(Exported().size(), 40u);
  EXPECT_NE(Read("config/monitoring/README.md").find(Metrics::DocumentationTable()), std::string::npos) << Metrics::DocumentationTable();
}

TEST(MetricsTest, DashboardAndAlertsNameWhatExists) {
  const std::set<std::string> exported = Exported();
  for (const char* path : {"config/monitoring/grafana.json", "config/monitoring/alerts.yaml"}) {
    const std::string text = Read(path);
    const std::regex name("headrace_[a-z0-9_]+");
    size_t found = 0;
    for (auto it = std::sregex_iterator(text.begin(), text.end(), name); it != std::sregex_iterator(); ++it, ++found) {
      EXPECT_TRUE(exported.contains(it->str())) << path << " names " << it->str();
    }
    EXPECT_GT(found, 7u) << path;
  }
}

TEST(MetricsTest, TextFormat) {
  Metrics metrics;
  metrics.mounts = 7;
  const std::string text = metrics.ToPrometheus();
  EXPECT_NE(text.find("# HELP headrace_mounts snapshots shown in the file system\n# TYPE headrace_mounts gauge\nheadrace_mounts 7\n"), std::string::npos);
  EXPECT_NE(text.find("headrace_build_info{version=\"" HEADRACE_VERSION "\"} 1\n"), std::string::npos);
  for (const std::string& counter : Exported()) {
    const bool is_counter = text.find("# TYPE " + counter + " counter\n") != std::string::npos;
    EXPECT_EQ(is_counter, counter.ends_with("_total")) << counter;
  }
}

}  // namespace
}  // namespace headrace
