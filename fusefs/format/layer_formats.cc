#include "fusefs/format/layer_formats.h"

#include <array>
#include <string_view>
#include <vector>

#include "fusefs/base/text.h"
#include "fusefs/format/estargz.h"

namespace headrace::format {
namespace {

// The second one is what containers/storage wrote until the end of 2022: Podman 4.3 and Buildah 1.28 of Debian 12 do.
constexpr std::array<std::string_view, 2> kChunkedPrefixes = {"io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."};
constexpr std::string_view kChecksum = "manifest-checksum";
constexpr std::string_view kPosition = "manifest-position";
constexpr std::string_view kChunkedTypeCrfs = "1";  // the only type that was ever defined

Result<TocLocation> ParseChunked(const std::string& checksum, const std::string& position, uint64_t blob_size) {
  const std::vector<std::string_view> parts = Split(position, ':');
  if (parts.size() != 4 || parts[3] != kChunkedTypeCrfs) {
    return InvalidArgumentError("zstd-chunked annotation " + std::string(kPosition) + " is not \"offset:size:uncompressed size:1\"");
  }
  std::array<uint64_t, 3> numbers{};
  for (size_t i = 0; i < numbers.size(); ++i) {
    auto number = ParseU64(parts[i]);
    if (!number.ok()) return number.status().Annotate("zstd-chunked annotation " + std::string(kPosition));
    numbers[i] = *number;
  }
  auto digest = Digest::Parse(checksum);
  if (!digest.ok()) return digest.status().Annotate("zstd-chunked annotation " + std::string(kChecksum));
  // Through the text form, which checks that the numbers fit each other.
  return TocLocation::Parse(TocLocation{*digest, numbers[0], numbers[1], numbers[2], blob_size}.ToString());
}

}  // namespace

Result<FormatHint> FormatOf(const std::map<std::string, std::string>& annotations, uint64_t blob_size) {
  const auto find = [&](std::string_view name) -> const std::string* {
    const auto it = annotations.find(std::string(name));
    return it == annotations.end() ? nullptr : &it->second;
  };
  FormatHint hint;
  if (const std::string* label = find(kTocLabel)) {
    hint.format = LayerFormat::kHeadrace;
    HR_ASSIGN_OR_RETURN(hint.toc, TocLocation::Parse(*label));
    if (hint.toc.blob_size != blob_size) return InvalidArgumentError("annotation " + std::string(kTocLabel) + " is of a blob of another size");
    return hint;
  }
  for (const std::string_view prefix : kChunkedPrefixes) {
    const std::string* checksum = find(std::string(prefix) + std::string(kChecksum));
    const std::string* position = find(std::string(prefix) + std::string(kPosition));
    if (checksum == nullptr || position == nullptr) continue;
    hint.format = LayerFormat::kZstdChunked;
    HR_ASSIGN_OR_RETURN(hint.toc, ParseChunked(*checksum, *position, blob_size));
    return hint;
  }
  if (const std::string* toc = find(kEstargzTocAnnotation)) {
    hint.format = LayerFormat::kEstargz;
    auto digest = Digest::Parse(*toc);
    if (!digest.ok()) return digest.status().Annotate("annotation " + std::string(kEstargzTocAnnotation));
    hint.estargz_toc = *digest;
  }
  return hint;
}

}  // namespace headrace::format
