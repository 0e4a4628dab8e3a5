#include "fusefs/format/gunzip.h"

#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <string>

namespace headrace::format {
namespace {

// RFC 1952, 2.3.1.
constexpr uint8_t kFlagHeaderCrc = 2, kFlagExtra = 4, kFlagName = 8, kFlagComment = 16, kFlagsReserved = 0xe0;
constexpr uint32_t kFixedBytes = 10;
constexpr uint32_t kTextBytesMax = 64 << 10;  // of name and comment: nobody's is longer

constexpr size_t kPieceMax = 1u << 30;  // the library counts in 32 bits

const char* Reason(int code) {
  switch (code) {
    case ISAL_INVALID_BLOCK: return "damaged block";
    case ISAL_INVALID_SYMBOL: return "damaged symbol";
    case ISAL_INVALID_LOOKBACK: return "reference before the beginning";
    case ISAL_INVALID_WRAPPER: return "not a gzip member";
    case ISAL_UNSUPPORTED_METHOD: return "unknown compression method";
    case ISAL_INCORRECT_CHECKSUM: return "wrong checksum";
    default: return "damaged";
  }
}

}  // namespace

Gunzip::Gunzip() : state_(std::make_unique<inflate_state>()) { Reset(); }
Gunzip::~Gunzip() = default;

void Gunzip::Reset() {
  isal_inflate_init(state_.get());
  state_->crc_flag = ISAL_GZIP_NO_HDR_VER;
  at_boundary_ = true;
  header_ = Header::kFixed;
  flags_ = 0;
  stage_bytes_ = extra_size_ = 0;
}

void Gunzip::NextStage() {
  stage_bytes_ = 0;
  const auto skip = [&](Header stage, uint8_t flag, Header next) {
    if (header_ == stage && (flags_ & flag) == 0) header_ = next;
  };
  header_ = static_cast<Header>(static_cast<uint8_t>(header_) + 1);
  skip(Header::kExtraSize, kFlagExtra, Header::kName);
  skip(Header::kName, kFlagName, Header::kComment);
  skip(Header::kComment, kFlagComment, Header::kChecksum);
  skip(Header::kChecksum, kFlagHeaderCrc, Header::kDone);
  if (header_ == Header::kExtra && extra_size_ == 0) NextStage();
}

Status Gunzip::ReadHeader(std::span<const uint8_t>& in) {
  while (header_ != Header::kDone && !in.empty()) {
    const uint8_t byte = in[0];
    in = in.subspan(1);
    const uint32_t at = stage_bytes_++;
    switch (header_) {
      case Header::kFixed:
        if ((at == 0 && byte != 0x1f) || (at == 1 && byte != 0x8b)) return DataLossError("gzip: not a gzip member");
        if ((at == 2 && byte != 8) || (at == 3 && (byte & kFlagsReserved) != 0)) return DataLossError("gzip: unknown compression method or flags");
        if (at == 3) flags_ = byte;
        if (stage_bytes_ == kFixedBytes) NextStage();
        break;
      case Header::kExtraSize:
        extra_size_ |= static_cast<uint32_t>(byte) << (8 * at);
        if (stage_bytes_ == 2) NextStage();
        break;
      case Header::kExtra:
        if (stage_bytes_ == extra_size_) NextStage();
        break;
      case Header::kName:
      case Header::kComment:
        if (stage_bytes_ > kTextBytesMax) return DataLossError("gzip: a name or comment of more than 64 KiB");
        if (byte == 0) NextStage();
        break;
      case Header::kChecksum:
        if (stage_bytes_ == 2) NextStage();
        break;
      case Header::kDone:
        break;
    }
  }
  return OkStatus();
}

Result<size_t> Gunzip::Decode(std::span<const uint8_t>& in, std::span<uint8_t> out) {
  size_t written = 0;
  do {
    HR_ASSIGN_OR_RETURN(const size_t got, DecodeMember(in, out.subspan(written)));
    written += got;
  } while (at_boundary_ && !in.empty() && written < out.size());
  return written;
}

Result<size_t> Gunzip::DecodeMember(std::span<const uint8_t>& in, std::span<uint8_t> out) {
  inflate_state& state = *state_;
  size_t written = 0;
  while (written < out.size()) {
    if (at_boundary_) {
      if (in.empty()) break;
      Reset();
      at_boundary_ = false;
    }
    if (header_ != Header::kDone) {
      HR_RETURN_IF_ERROR(ReadHeader(in));
      if (header_ != Header::kDone) break;
    }
    const size_t piece = std::min(in.size(), kPieceMax);
    const size_t room = std::min(out.size() - written, kPieceMax);
    state.next_in = const_cast<uint8_t*>(in.data());  // the library reads only
    state.avail_in = static_cast<uint32_t>(piece);
    state.next_out = out.data() + written;
    state.avail_out = static_cast<uint32_t>(room);
    const int code = isal_inflate(&state);
    if (code < 0 || code > ISAL_OUT_OVERFLOW) return DataLossError(std::string("gzip: ") + Reason(code));
    const size_t taken = piece - state.avail_in;
    const size_t made = room - state.avail_out;
    in = in.subspan(taken);
    written += made;
    if (state.block_state == ISAL_BLOCK_FINISH) {
      at_boundary_ = true;
      break;
    }
    if (taken == 0 && made == 0) {
      break;  // it needs more input
    }
  }
  return written;
}

}  // namespace headrace::format
