#include "fusefs/base/metrics.h"

namespace headrace {

std::string Metrics::ToPrometheus() const {
  std::string out;
#define HEADRACE_METRIC_LINE(field, name, type, help) \
  out += "# HELP " name " " help "\n# TYPE " name " " type "\n" name " " + std::to_string(Get(field)) + "\n";
  HEADRACE_METRICS(HEADRACE_METRIC_LINE)
#undef HEADRACE_METRIC_LINE
  return out;
}

}  // namespace headrace
