#include "fusefs/format/tar_reader.h"

#include <algorithm>

#include "fusefs/base/text.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/limits.h"

namespace headrace::format {
namespace {

uint64_t PaddingOf(uint64_t size) { return (kTarBlock - size % kTarBlock) % kTarBlock; }

std::string UntilNul(const std::string& text) { return text.substr(0, text.find('\0')); }

}  // namespace

Status TarReader::Write(std::span<const uint8_t> bytes) {
  HR_RETURN_IF_ERROR(failed_);
  while (!bytes.empty()) {
    const uint64_t before = bytes.size();
    Status status = Step(bytes);
    position_ += before - bytes.size();
    if (!status.ok()) {
      failed_ = status.Annotate("tar, near byte " + std::to_string(position_));
      return failed_;
    }
  }
  return OkStatus();
}

Status TarReader::Skip(uint64_t bytes) {
  HR_RETURN_IF_ERROR(failed_);
  HEADRACE_CHECK(bytes > 0 && bytes <= skippable());
  left_ -= bytes;
  position_ += bytes;
  Status status = handler_.OnSkipped(bytes);
  if (status.ok() && left_ == 0) status = EndContent();
  if (!status.ok()) failed_ = status.Annotate("tar, near byte " + std::to_string(position_));
  return failed_;
}

Status TarReader::Step(std::span<const uint8_t>& bytes) {
  switch (state_) {
    case State::kHeader:
    case State::kOldSparse:
    case State::kSparseMap: {
      bool complete = false;
      HR_RETURN_IF_ERROR(TakeBlock(bytes, complete));
      return complete ? OnBlock() : OkStatus();
    }
    case State::kTrailer: {
      std::span<const uint8_t> rest = bytes;
      bytes = {};
      return handler_.OnRaw(rest);
    }
    default: break;
  }
  std::span<const uint8_t> part = bytes.first(std::min<uint64_t>(left_, bytes.size()));
  bytes = bytes.subspan(part.size());
  left_ -= part.size();
  if (state_ == State::kContent) {
    HR_RETURN_IF_ERROR(handler_.OnContent(part));
    return left_ == 0 ? EndContent() : OkStatus();
  }
  HR_RETURN_IF_ERROR(handler_.OnRaw(part));
  if (state_ == State::kSpecial) {
    special_.append(AsText(part));
    return left_ == 0 ? OnSpecialEnd() : OkStatus();
  }
  if (left_ == 0) state_ = State::kHeader;
  return OkStatus();
}

Status TarReader::TakeBlock(std::span<const uint8_t>& bytes, bool& complete) {
  const uint64_t n = std::min<uint64_t>(kTarBlock - block_.size(), bytes.size());
  block_.append(AsText(bytes.first(n)));
  HR_RETURN_IF_ERROR(handler_.OnRaw(bytes.first(n)));
  bytes = bytes.subspan(n);
  complete = block_.size() == kTarBlock;
  return OkStatus();
}

Status TarReader::OnBlock() {
  Status status;
  switch (state_) {
    case State::kHeader: status = OnHeader(); break;
    case State::kSparseMap: status = OnSparseBlock(); break;
    default: {
      bool more = false;
      status = ParseOldGnuSparse(AsBytes(block_), true, entry_, more);
      if (status.ok() && !more) status = BeginContent();
    }
  }
  block_.clear();
  return status;
}

Status TarReader::OnHeader() {
  if (std::all_of(block_.begin(), block_.end(), [](char c) { return c == 0; })) {
    if (zero_block_seen_) state_ = State::kTrailer;
    zero_block_seen_ = true;
    return OkStatus();
  }
  if (zero_block_seen_) return InvalidArgumentError("data after a single block of zeros");
  HR_ASSIGN_OR_RETURN(entry_, ParseTarBlock(AsBytes(block_)));
  switch (entry_.type) {
    case 'x':
    case 'g':
    case 'L':
    case 'K':
      if (entry_.size > limits::kTarSpecialSizeMax) {
        return ResourceExhaustedError(std::string("extended header '") + entry_.type + "' of " +
                                      std::to_string(entry_.size) + " bytes");
      }
      special_type_ = entry_.type;
      special_.clear();
      left_ = entry_.size;
      state_ = State::kSpecial;
      return left_ == 0 ? OnSpecialEnd() : OkStatus();
    default: return BeginEntry();
  }
}

Status TarReader::OnSpecialEnd() {
  switch (special_type_) {
    case 'x': {
      HR_ASSIGN_OR_RETURN(pax_, ParsePax(special_));
      break;
    }
    case 'L': long_name_ = UntilNul(special_); break;
    case 'K': long_link_ = UntilNul(special_); break;
    default: {
      HR_RETURN_IF_ERROR(ParsePax(special_).status());
      ++global_headers_;
      pax_.clear();  // as Go's archive/tar: a global header stands alone
      long_name_.clear();
      long_link_.clear();
    }
  }
  left_ = PaddingOf(special_.size());
  state_ = left_ == 0 ? State::kHeader : State::kPadding;
  return OkStatus();
}

bool TarReader::StoresContent() const { return entry_.type < '1' || entry_.type > '6'; }

// `entry_` has what the block says; the extensions before it come on top.
Status TarReader::BeginEntry() {
  HR_RETURN_IF_ERROR(ApplyPax(pax_, entry_));
  if (!long_name_.empty()) entry_.name = long_name_;
  if (!long_link_.empty()) entry_.link_target = long_link_;
  if (entry_.type == '\0') entry_.type = entry_.name.ends_with('/') ? '5' : '0';
  if (entry_.size > limits::kFileSizeMax) {
    return ResourceExhaustedError("'" + entry_.name + "' has " + std::to_string(entry_.size) + " bytes");
  }
  entry_.stored_size = StoresContent() ? entry_.size : 0;
  padding_after_content_ = PaddingOf(entry_.stored_size);
  if (entry_.type == 'S') {
    bool more = false;
    HR_RETURN_IF_ERROR(ParseOldGnuSparse(AsBytes(block_), false, entry_, more));
    state_ = State::kOldSparse;
    return more ? OkStatus() : BeginContent();
  }
  HR_ASSIGN_OR_RETURN(PaxSparse sparse, ApplyPaxSparse(pax_, entry_));
  if (sparse != PaxSparse::kNone && !entry_.IsRegular()) {
    return InvalidArgumentError("'" + entry_.name + "' is sparse but not a file");
  }
  if (sparse == PaxSparse::kMapInRecords) {
    auto map = pax_.find("GNU.sparse.map");
    if (map != pax_.end()) HR_RETURN_IF_ERROR(ParseSparseMapText(map->second, ',', entry_));
  }
  if (sparse == PaxSparse::kMapInData) {
    special_.clear();
    sparse_lines_ = 0;
    state_ = State::kSparseMap;
    return OkStatus();
  }
  return BeginContent();
}

// Format 1.0: the content begins with "count\noffset\nsize\n...", padded with anything to whole blocks.
Status TarReader::OnSparseBlock() {
  if (entry_.stored_size < kTarBlock) return InvalidArgumentError("sparse map is longer than its file");
  entry_.stored_size -= kTarBlock;
  special_ += block_;
  const size_t first = special_.find('\n');
  if (first == std::string::npos || first > 20) return InvalidArgumentError("malformed sparse map");
  HR_ASSIGN_OR_RETURN(uint64_t count, ParseU64(std::string_view(special_).substr(0, first)));
  if (count > limits::kTarSparseRegionsMax) {
    return ResourceExhaustedError("sparse map of " + std::to_string(count) + " regions");
  }
  sparse_lines_ += static_cast<uint64_t>(std::count(block_.begin(), block_.end(), '\n'));
  if (sparse_lines_ < 2 * count + 1) return OkStatus();  // blocks are read until they hold the whole map
  size_t end = first;
  for (uint64_t i = 0; i < 2 * count; ++i) end = special_.find('\n', end + 1);
  if (count > 0) {
    HR_RETURN_IF_ERROR(ParseSparseMapText(
        std::string_view(special_).substr(first + 1, end - first - 1), '\n', entry_));
  }
  return BeginContent();
}

Status TarReader::BeginContent() {
  pax_.clear();
  long_name_.clear();
  long_link_.clear();
  if (entry_.is_sparse) {
    if (entry_.size > limits::kFileSizeMax) return ResourceExhaustedError("sparse file is too large");
    HR_RETURN_IF_ERROR(CheckSparse(entry_));
  }
  HR_RETURN_IF_ERROR(handler_.OnEntry(entry_));
  left_ = entry_.stored_size;
  state_ = State::kContent;
  return left_ == 0 ? EndContent() : OkStatus();
}

Status TarReader::EndContent() {
  HR_RETURN_IF_ERROR(handler_.OnEntryEnd());
  left_ = padding_after_content_;
  state_ = left_ == 0 ? State::kHeader : State::kPadding;
  return OkStatus();
}

Status TarReader::Finish() {
  HR_RETURN_IF_ERROR(failed_);
  // Padding that is cut off at the very end loses nothing, and other readers take it too.
  const bool complete = state_ == State::kTrailer || state_ == State::kPadding ||
                        (state_ == State::kHeader && block_.empty());
  const bool dangling = !pax_.empty() || !long_name_.empty() || !long_link_.empty();
  if (complete && !dangling) return OkStatus();
  return InvalidArgumentError("tar is truncated: it ends at byte " + std::to_string(position_) +
                              (state_ == State::kContent ? " inside '" + entry_.name + "'" : ""));
}

}  // namespace headrace::format
