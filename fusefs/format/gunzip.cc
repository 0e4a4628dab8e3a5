#include "fusefs/format/gunzip.h"

#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <string>

namespace headrace::format {
namespace {

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
  state_->crc_flag = ISAL_GZIP;
  at_boundary_ = true;
}

Result<size_t> Gunzip::Decode(std::span<const uint8_t>& in, std::span<uint8_t> out) {
  inflate_state& state = *state_;
  size_t written = 0;
  while (written < out.size()) {
    if (at_boundary_) {
      if (in.empty()) break;
      Reset();
      at_boundary_ = false;
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
    } else if (taken == 0 && made == 0) {
      break;  // it needs more input
    }
  }
  return written;
}

}  // namespace headrace::format
