#include "fusefs/format/estargz.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "fusefs/format/bytes.h"
#include "fusefs/format/gunzip.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/tar_reader.h"
#include "fusefs/format/toc.h"

namespace headrace::format {
namespace {

constexpr std::string_view kTocName = "stargz.index.json";
constexpr std::array<std::string_view, 3> kOwnFiles = {kTocName, ".prefetch.landmark", ".no.prefetch.landmark"};

// The footer is an empty gzip member: ten bytes of header with the flag for an extra field, the length of that, the field, an empty last block, eight bytes of trailer.
constexpr size_t kExtraLengthAt = 10;
constexpr size_t kExtraAt = 12;
constexpr size_t kSubfieldHeader = 4;  // "SG", length
constexpr size_t kHexDigits = 16;
constexpr std::string_view kMagic = "STARGZ";
constexpr size_t kPayload = kHexDigits + kMagic.size();

size_t Le16(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]) | static_cast<size_t>(static_cast<uint8_t>(text[at + 1])) << 8; }

Result<uint64_t> ParseHex(std::string_view digits) {
  uint64_t value = 0;
  for (const char c : digits) {
    const bool digit = c >= '0' && c <= '9', letter = c >= 'a' && c <= 'f';
    if (!digit && !letter) return InvalidArgumentError("eStargz footer: the offset is no number");
    value = value << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return value;
}

bool IsFooter(std::string_view footer, size_t extra) {
  return footer.starts_with(std::string_view("\x1f\x8b\x08\x04", 4)) && Le16(footer, kExtraLengthAt) == extra;
}

// Takes the content of the one file out of the table's tar.
class TocFile : public TarReader::Handler {
 public:
  Status OnEntry(const TarEntry& entry) override {
    if (entry.name != kTocName || !entry.IsRegular()) return InvalidArgumentError("the table of contents is not the file " + std::string(kTocName));
    if (found_) return InvalidArgumentError("there are two tables of contents");
    if (entry.stored_size > limits::kTocSizeMax) return ResourceExhaustedError("the table of contents has " + std::to_string(entry.stored_size) + " bytes");
    found_ = true;
    return OkStatus();
  }
  Status OnContent(std::span<const uint8_t> bytes) override {
    json.append(AsText(bytes));
    return OkStatus();
  }
  bool found() const { return found_; }
  std::string json;

 private:
  bool found_ = false;
};

Result<std::string> UnpackToc(std::span<const uint8_t> members) {
  TocFile file;
  TarReader tar(file);
  Gunzip gunzip;
  std::vector<uint8_t> buffer(256 << 10);
  uint64_t total = 0;
  while (!members.empty()) {
    const size_t before = members.size();
    HR_ASSIGN_OR_RETURN(const size_t got, gunzip.Decode(members, buffer));
    total += got;
    if (total > limits::kTocSizeMax + (1 << 20)) return ResourceExhaustedError("the table of contents decodes to more than its limit");
    HR_RETURN_IF_ERROR(tar.Write(std::span<const uint8_t>(buffer).first(got)));
    if (got == 0 && members.size() == before) break;
  }
  for (size_t got = 1; got > 0;) {  // what waits in the decoder
    HR_ASSIGN_OR_RETURN(got, gunzip.Decode(members, buffer));
    HR_RETURN_IF_ERROR(tar.Write(std::span<const uint8_t>(buffer).first(got)));
  }
  if (!gunzip.at_boundary()) return DataLossError("gzip: cut short");
  HR_RETURN_IF_ERROR(tar.Finish());
  if (!file.found()) return InvalidArgumentError("there is no file " + std::string(kTocName));
  return std::move(file.json);
}

void DropOwnFiles(LayerIndex& index) {
  std::erase_if(index.entries, [](const Entry& entry) {
    return entry.type == EntryType::kRegular && std::find(kOwnFiles.begin(), kOwnFiles.end(), entry.name) != kOwnFiles.end();
  });
}

}  // namespace

Result<EstargzFooter> ParseEstargzFooter(std::string_view tail) {
  if (tail.size() < kEstargzFooterSize) return InvalidArgumentError("too short for an eStargz footer");
  std::string_view footer = tail.substr(tail.size() - kEstargzFooterSize);
  if (IsFooter(footer, kSubfieldHeader + kPayload) && footer.substr(kExtraAt, 2) == "SG" && Le16(footer, kExtraAt + 2) == kPayload) {
    const std::string_view payload = footer.substr(kExtraAt + kSubfieldHeader, kPayload);
    if (payload.substr(kHexDigits) == kMagic) {
      HR_ASSIGN_OR_RETURN(const uint64_t offset, ParseHex(payload.substr(0, kHexDigits)));
      return EstargzFooter{offset, kEstargzFooterSize};
    }
  }
  footer = tail.substr(tail.size() - kEstargzLegacyFooterSize);
  if (IsFooter(footer, kPayload) && footer.substr(kExtraAt + kHexDigits, kMagic.size()) == kMagic) {
    HR_ASSIGN_OR_RETURN(const uint64_t offset, ParseHex(footer.substr(kExtraAt, kHexDigits)));
    return EstargzFooter{offset, kEstargzLegacyFooterSize};
  }
  return InvalidArgumentError("no eStargz footer at the end of the blob");
}

Result<LayerIndex> ReadEstargzToc(std::span<const uint8_t> members, const Digest& json_digest, uint64_t toc_offset, uint64_t blob_size) {
  auto json = UnpackToc(members);
  if (!json.ok()) return json.status().Annotate("eStargz table of contents");
  const Digest actual = Digest::Of(*json);
  if (actual != json_digest) {
    return DataLossError("eStargz table of contents has digest " + actual.ToString() + ", should be " + json_digest.ToString());
  }
  HR_ASSIGN_OR_RETURN(LayerIndex index, ParseTocJson(*json, toc_offset, blob_size, TocDialect::kEstargz));
  DropOwnFiles(index);
  return index;
}

}  // namespace headrace::format
