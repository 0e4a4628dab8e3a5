#include "fusefs/stream/read_tracker.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace headrace::stream {
namespace {

// Requests of one forward reader come a little out of order (the kernel's read-ahead, several FUSE threads) and skip a little.
constexpr uint64_t kSlack = uint64_t{8} << 20;
// Read in one go before a file of any kind counts as read forward: more than looking at its head, less than a second of a slow wire.
constexpr uint64_t kForwardBytes = uint64_t{1} << 20;
// Places read before a file counts as read all over.
constexpr uint64_t kScatteredReads = 8;
// A header of a safetensors file with its kernel read-ahead is no more; who reads more wants the tensors.
constexpr uint64_t kHeadBytes = uint64_t{8} << 20;
constexpr std::chrono::seconds kActiveFor{5};

constexpr std::array<std::string_view, 2> kModelSuffixes = {".safetensors", ".gguf"};
constexpr std::array<std::string_view, 13> kWeightSuffixes = {".bin",  ".pt",    ".pth", ".ckpt",    ".onnx",   ".npz",    ".npy",
                                                              ".h5",   ".ggml",  ".th",  ".tensors", ".msgpack", ".engine"};

}  // namespace

FileKind KindOf(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto ends = [&](std::string_view suffix) { return lower.ends_with(suffix); };
  if (std::any_of(kModelSuffixes.begin(), kModelSuffixes.end(), ends)) return FileKind::kModel;
  if (std::any_of(kWeightSuffixes.begin(), kWeightSuffixes.end(), ends)) return FileKind::kWeights;
  return FileKind::kPlain;
}

// The cursor that this read continues; a new one if there is none (the one unused for longest goes).
ReadTracker::Cursor& ReadTracker::CursorFor(uint64_t offset, uint64_t end) {
  Cursor* best = nullptr;
  for (Cursor& cursor : cursors_) {
    const bool continues = offset <= cursor.read + kSlack && end + kSlack >= cursor.read && offset >= cursor.begin;
    // Of several the one right before: interleaved streams may be close to each other.
    const auto distance = [&](const Cursor& c) { return c.read > offset ? c.read - offset : offset - c.read; };
    if (continues && (best == nullptr || distance(cursor) < distance(*best))) best = &cursor;
  }
  if (best != nullptr) return *best;
  ++jumps_;
  if (cursors_.size() == kCursorsMax) {
    const auto oldest = std::min_element(cursors_.begin(), cursors_.end(), [](const Cursor& a, const Cursor& b) { return a.stamp < b.stamp; });
    if (retired_.size() == kRetiredMax) retired_.erase(retired_.begin());
    retired_.push_back(*oldest);
    cursors_.erase(oldest);
  }
  return cursors_.emplace_back(Cursor{offset, offset, offset, 0, offset});
}

bool ReadTracker::OnRead(FileKind kind, uint64_t offset, uint64_t size, TimePoint now) {
  const uint64_t end = std::min(size_, offset + size);
  MutexLock lock(mu_);
  Cursor& cursor = CursorFor(offset, end);
  cursor.read = std::max(cursor.read, end);
  cursor.plan = std::max(cursor.plan, cursor.read);
  cursor.stamp = ++stamp_;
  bytes_read_ += end - offset;
  last_read_ = now;
  if (whole_) return false;
  whole_ = kind == FileKind::kModel || cursor.read - cursor.begin >= kForwardBytes || jumps_ >= kScatteredReads;
  return whole_;
}

void ReadTracker::ForgetWhole() {
  MutexLock lock(mu_);
  whole_ = false;
}

ReadTracker::Cursor* ReadTracker::LeastServed() {
  Cursor* least = nullptr;
  for (Cursor& cursor : cursors_) {
    if (cursor.plan >= size_) continue;
    if (least == nullptr || cursor.plan - cursor.read < least->plan - least->read) least = &cursor;
  }
  return least;
}

uint64_t ReadTracker::Lead() const {
  MutexLock lock(mu_);
  const Cursor* cursor = const_cast<ReadTracker*>(this)->LeastServed();
  return cursor != nullptr ? cursor->plan - cursor->read : size_;
}

bool ReadTracker::Active(TimePoint now) const {
  MutexLock lock(mu_);
  return bytes_read_ >= std::min(kHeadBytes, size_ / 2) && now - last_read_ < kActiveFor;
}

uint64_t ReadTracker::NextPosition() {
  MutexLock lock(mu_);
  for (;;) {
    Cursor* cursor = LeastServed();
    if (cursor == nullptr) return leave_holes_ ? size_ : sweep_;
    const uint64_t next = leave_holes_ ? SkipRead(*cursor) : cursor->plan;
    if (next == cursor->plan) return next;
    cursor->plan = next;
  }
}

uint64_t ReadTracker::SkipRead(const Cursor& cursor) const {
  uint64_t next = cursor.plan;
  for (const std::vector<Cursor>* cursors : {&cursors_, &retired_}) {
    for (const Cursor& other : *cursors) {
      // (One that began within that part reads it again.)
      if (cursor.begin < other.begin && next >= other.begin && next < other.read) next = other.read;
    }
  }
  return next;
}

std::optional<ReadTracker::Part> ReadTracker::Behind(uint64_t from) const {
  MutexLock lock(mu_);
  std::optional<Part> first;
  const auto look = [&](const Cursor& cursor, uint64_t end) HR_REQUIRES(mu_) {
    if (cursor.given < from || cursor.given >= end) return;
    Part part{cursor.given, end};
    // Another one comes after it, and has that part before it or just around it.
    for (const Cursor& other : cursors_) {
      const uint64_t around = std::max(other.begin, other.read > kSlack ? other.read - kSlack : 0);
      if (&other != &cursor && around < part.end && other.plan + kSlack > part.begin) part.end = std::max(around, part.begin);
    }
    if (part.begin >= part.end) return;
    if (!first || part.begin < first->begin || (part.begin == first->begin && part.end > first->end)) first = part;
  };
  for (const Cursor& cursor : cursors_) look(cursor, cursor.read > kSlack ? cursor.read - kSlack : 0);
  for (const Cursor& cursor : retired_) look(cursor, cursor.read);
  return first;
}

void ReadTracker::GaveBack(uint64_t from, uint64_t to) {
  MutexLock lock(mu_);
  leave_holes_ = true;
  for (std::vector<Cursor>* cursors : {&cursors_, &retired_}) {
    for (Cursor& cursor : *cursors) {
      if (cursor.given >= from && cursor.given < to) cursor.given = std::min(to, cursor.read);
    }
  }
}

void ReadTracker::LeaveHoles() {
  MutexLock lock(mu_);
  leave_holes_ = true;
}

void ReadTracker::Planned(uint64_t from, uint64_t to) {
  MutexLock lock(mu_);
  for (Cursor& cursor : cursors_) {
    if (cursor.plan >= from && cursor.plan < to) cursor.plan = to;
  }
  if (sweep_ >= from && sweep_ < to) sweep_ = to;
}

void ReadTracker::Rewind(uint64_t offset) {
  MutexLock lock(mu_);
  for (Cursor& cursor : cursors_) {
    if (cursor.read <= offset) cursor.plan = std::min(cursor.plan, offset);
  }
  sweep_ = std::min(sweep_, offset);
}

}  // namespace headrace::stream
