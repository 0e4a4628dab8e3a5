// eStargz: the footer, and the gzip member with the table. Input: '0' and the end of a blob; '1' and the members of the table.
#include "fusefs/base/status.h"
#include "fusefs/format/estargz.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {

void FuzzEstargz(Bytes data) {
  Input input(data);
  if (input.Choice(2) == 0) {
    auto footer = format::ParseEstargzFooter(input.Text());
    if (!footer.ok()) return;
    HEADRACE_CHECK(footer->size == format::kEstargzFooterSize || footer->size == format::kEstargzLegacyFooterSize);
    HEADRACE_CHECK(input.Text().size() >= format::kEstargzFooterSize);
    return;
  }
  // Nobody can make members of this digest: whatever they hold, nothing of it may be believed.
  auto index = format::ReadEstargzToc(input.Rest(), Digest::Of("never"), 1000, 1000 + input.Rest().size() + format::kEstargzFooterSize);
  HEADRACE_CHECK(!index.ok());
}

}  // namespace headrace::fuzz
