// Manifests, indexes, image configs, platforms. Input: which of them, the text.
#include <string>

#include "fusefs/base/status.h"
#include "fusefs/format/image_documents.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckDescriptor(const format::Descriptor& descriptor) {
  HEADRACE_CHECK(Digest::Parse(descriptor.digest.ToString()).ok() && descriptor.size <= uint64_t{1} << 62);
}

void CheckManifest(std::string_view text) {
  auto manifest = format::ParseManifest(text);
  if (!manifest.ok()) return;
  HEADRACE_CHECK(manifest->layers.size() <= format::kLayersMax);
  CheckDescriptor(manifest->config);
  for (const format::Descriptor& layer : manifest->layers) CheckDescriptor(layer);
}

void CheckIndexDocument(std::string_view text) {
  auto index = format::ParseIndex(text);
  if (!index.ok()) return;
  HEADRACE_CHECK(index->manifests.size() <= format::kIndexEntriesMax);
  for (const format::Descriptor& manifest : index->manifests) CheckDescriptor(manifest);
}

void CheckPlatform(std::string_view text) {
  auto platform = format::Platform::Parse(text);
  if (!platform.ok()) return;
  HEADRACE_CHECK(platform->ToString() == text && platform->Satisfies(*platform));
}

}  // namespace

void FuzzImageDocuments(Bytes data) {
  Input input(data);
  switch (input.Choice(4)) {
    case 0: {
      auto kind = format::KindOf(input.Text(), format::kOciManifest);
      CheckManifest(input.Text());
      if (kind.ok() && *kind == format::DocumentKind::kIndex) CheckIndexDocument(input.Text());
      return;
    }
    case 1: return CheckIndexDocument(input.Text());
    case 2: {
      auto config = format::ParseConfig(input.Text());
      if (config.ok()) HEADRACE_CHECK(config->diff_ids.size() <= format::kLayersMax);
      return;
    }
    default: return CheckPlatform(input.Text());
  }
}

}  // namespace headrace::fuzz
