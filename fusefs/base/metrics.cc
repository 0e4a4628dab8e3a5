#include "fusefs/base/metrics.h"

namespace headrace {

std::string Metrics::ToPrometheus() const {
  std::string out = "# HELP headrace_build_info version of this process\n# TYPE headrace_build_info gauge\nheadrace_build_info{version=\"" HEADRACE_VERSION "\"} 1\n";
#define HEADRACE_METRIC_LINE(field, name, type, help) \
  out += "# HELP " name " " help "\n# TYPE " name " " type "\n" name " " + std::to_string(Get(field)) + "\n";
  HEADRACE_METRICS(HEADRACE_METRIC_LINE)
#undef HEADRACE_METRIC_LINE
  return out;
}

std::string Metrics::DocumentationTable() {
  std::string out = "| metric | type | labels | what |\n|---|---|---|---|\n| `headrace_build_info` | gauge | `version` | version of this process, always 1 |\n";
#define HEADRACE_METRIC_ROW(field, name, type, help) out += "| `" name "` | " type " | | " help " |\n";
  HEADRACE_METRICS(HEADRACE_METRIC_ROW)
#undef HEADRACE_METRIC_ROW
  return out;
}

}  // namespace headrace
