#include "fusefs/format/tar_split.h"

#include "fusefs/base/text.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/json_text.h"
#include "fusefs/format/limits.h"

namespace headrace::format {
namespace {
constexpr int kTypeFile = 1;
constexpr int kTypeSegment = 2;

std::string Begin(int type) { return "{\"type\":" + std::to_string(type); }
}  // namespace

Result<std::unique_ptr<TarSplitWriter>> TarSplitWriter::Create(int zstd_level) {
  HR_ASSIGN_OR_RETURN(auto out, MemoryCompressor::Create(zstd_level));
  return std::unique_ptr<TarSplitWriter>(new TarSplitWriter(std::move(out)));
}

Status TarSplitWriter::Segment(std::string_view bytes) {
  if (bytes.empty() || too_large_) return OkStatus();
  return Line(Begin(kTypeSegment) + ",\"payload\":\"" + Base64Encode(bytes) + '"');
}

Status TarSplitWriter::File(std::string_view name, uint64_t size, uint64_t crc) {
  if (too_large_) return OkStatus();
  std::string line = Begin(kTypeFile);
  if (IsUtf8(name)) {
    line += ",\"name\":";
    AppendJsonString(line, name);
  } else {
    line += ",\"name_raw\":\"" + Base64Encode(name) + '"';
  }
  if (size == 0) return Line(line + ",\"payload\":null");
  std::string sum;
  for (int i = 7; i >= 0; --i) sum.push_back(static_cast<char>((crc >> (8 * i)) & 0xff));  // big-endian
  return Line(line + ",\"size\":" + std::to_string(size) + ",\"payload\":\"" + Base64Encode(sum) + '"');
}

Status TarSplitWriter::Line(std::string line) {
  line += ",\"position\":" + std::to_string(position_++) + "}\n";
  HR_RETURN_IF_ERROR(out_->Write(AsBytes(line)));
  if (out_->compressed().size() > limits::kTarSplitSizeMax) {
    too_large_ = true;
    out_->compressed() = std::string();
  }
  return OkStatus();
}

Status TarSplitWriter::Finish() {
  HR_RETURN_IF_ERROR(out_->Finish());
  if (too_large_) out_->compressed() = std::string();
  return OkStatus();
}

}  // namespace headrace::format
