// Annotations of a layer's descriptor and the label that containerd hands over. Input: '0' and the label's value; or '1' and lines "key=value".
#include <map>
#include <string>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_formats.h"
#include "fusefs/format/toc.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckLocation(const format::TocLocation& location) {
  HEADRACE_CHECK(location.offset >= 8 && location.offset <= location.blob_size);
  HEADRACE_CHECK(location.compressed_size > 0 && location.compressed_size <= location.blob_size - location.offset);
  auto again = format::TocLocation::Parse(location.ToString());
  HEADRACE_CHECK(again.ok() && again->ToString() == location.ToString());
}

}  // namespace

void FuzzLayerHint(Bytes data) {
  Input input(data);
  if (input.Choice(2) == 0) {
    auto location = format::TocLocation::Parse(input.Text());
    if (location.ok()) CheckLocation(*location);
    return;
  }
  std::map<std::string, std::string> annotations;
  while (!input.empty()) {
    const std::string_view line = input.Line();
    const size_t equals = line.find('=');
    if (equals != std::string_view::npos) annotations[std::string(line.substr(0, equals))] = line.substr(equals + 1);
  }
  constexpr uint64_t kBlobSize = 1'000'000;
  auto hint = format::FormatOf(annotations, kBlobSize);
  if (!hint.ok()) return;
  const bool toc = hint->format == format::LayerFormat::kHeadrace || hint->format == format::LayerFormat::kZstdChunked;
  if (toc) CheckLocation(hint->toc);
  if (toc) HEADRACE_CHECK(hint->toc.blob_size == kBlobSize);
}

}  // namespace headrace::fuzz
