// headrace.toml. Input: the file.
#include <algorithm>
#include <string>

#include "config/config.h"
#include "fusefs/base/text.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckLimit(const config::Size& value, std::string_view min, std::string_view max) {
  HEADRACE_CHECK(min.empty() || value >= *ParseSize(min));
  HEADRACE_CHECK(max.empty() || value <= *ParseSize(max));
}

void CheckLimit(const config::Duration& value, std::string_view min, std::string_view max) {
  HEADRACE_CHECK(min.empty() || value >= *ParseDuration(min));
  HEADRACE_CHECK(max.empty() || value <= *ParseDuration(max));
}

void CheckLimit(const config::Text&, std::string_view, std::string_view) {}
void CheckLimit(const config::TextList&, std::string_view, std::string_view) {}

}  // namespace

void FuzzConfig(Bytes data) {
  const std::string name = "/etc/headrace/headrace.toml";
  auto config = config::ParseConfig(TextOf(data), name);
  if (!config.ok()) {
    // Every mistake names the file.
    HEADRACE_CHECK(config.status().code() == StatusCode::kInvalidArgument && config.status().message().find(name) != std::string::npos);
    return;
  }
#define HEADRACE_CHECK_FUSED(group, section, key, kind, fallback, min, max, help) CheckLimit(config->fused.key, min, max);
#define HEADRACE_CHECK_SNAPSHOTTER(group, section, key, kind, fallback, min, max, help) CheckLimit(config->snapshotter.key, min, max);
  HEADRACE_FUSED_PARAMS(HEADRACE_CHECK_FUSED)
  HEADRACE_SNAPSHOTTER_PARAMS(HEADRACE_CHECK_SNAPSHOTTER)
#undef HEADRACE_CHECK_FUSED
#undef HEADRACE_CHECK_SNAPSHOTTER
}

}  // namespace headrace::fuzz
