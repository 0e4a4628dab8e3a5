// Where images are, as on the command line of `headrace`: OCI layouts and references. Input: the argument.
#include <string>

#include "snapshotter/cli/location.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {

void FuzzLocation(Bytes data) {
  auto location = cli::Location::Parse(TextOf(data));
  if (!location.ok()) return;
  const std::string text = location->ToString();
  auto again = cli::Location::Parse(text);
  HEADRACE_CHECK(again.ok() && again->ToString() == text);
  const cli::LayoutLocation* layout = location->layout();
  HEADRACE_CHECK((layout != nullptr) == (again->layout() != nullptr));
  if (layout == nullptr) return;
  HEADRACE_CHECK(!layout->path.empty() && layout->tag.find_first_of("/:@") == std::string::npos);
  HEADRACE_CHECK(layout->path == again->layout()->path && layout->tag == again->layout()->tag && layout->digest == again->layout()->digest);
}

}  // namespace headrace::fuzz
