#include "fusefs/kernel/session_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

namespace headrace::kernel {
namespace {

constexpr char kMagic[8] = {'H', 'R', 'S', 'E', 'S', 'S', 'I', 'O'};
constexpr size_t kInitBytesMax = 512;
constexpr size_t kMountpointMax = 4096;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

struct Place {
  uint64_t node;
  int32_t backing_id;
  uint32_t opens;
  uint32_t mode;
  uint32_t unused;
};

// Stores before it are in memory before stores after it: the compiler keeps the order, x86 and a release fence the rest. Another process sees
// the memory only after this one is dead.
void Fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

}  // namespace

// As in README.md, "Session table". Host byte order: it never leaves the machine.
struct SessionTable::Layout {
  char magic[8];
  uint32_t version;
  uint32_t places_max;
  uint32_t answers_max;
  uint32_t init_size;
  uint64_t flags;
  uint64_t device;
  uint32_t mountpoint_size;
  // -- changes from here on
  uint32_t places_used;  // places at and above it were never used
  int32_t last_registered;
  uint32_t registering;
  int32_t closing;
  // The transaction: its values, valid while `committing` is 1.
  uint32_t committing;
  uint32_t place;
  uint32_t answer;
  uint64_t unique;
  Place values;
  int32_t closes;
  uint32_t unused;
  char init_bytes[kInitBytesMax];
  char mountpoint[kMountpointMax];
  uint64_t answers[kAnswersMax];  // unique of the request, 0 = free
  Place places[kOpenInodesMax];
};

SessionTable::SessionTable(SessionTable&& other) noexcept
    : memory_(std::move(other.memory_)),
      layout_(std::exchange(other.layout_, nullptr)),
      identity_(std::move(other.identity_)),
      free_places_(std::move(other.free_places_)),
      free_answers_(std::move(other.free_answers_)) {}

SessionTable::~SessionTable() {
  if (layout_ != nullptr) ::munmap(layout_, sizeof(Layout));
}

Status SessionTable::Map(UniqueFd memory) {
  static_assert(offsetof(Layout, values) == 80 && offsetof(Layout, init_bytes) == 112 && offsetof(Layout, answers) == 4720 && offsetof(Layout, places) == 12912,
                "README.md says so");
  void* at = ::mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (at == MAP_FAILED) return Status::FromErrno(errno, "map the session table");
  memory_ = std::move(memory);
  layout_ = static_cast<Layout*>(at);
  return OkStatus();
}

Result<SessionTable> SessionTable::Create(const SessionIdentity& identity) {
  if (identity.init_bytes.size() > kInitBytesMax || identity.mountpoint.size() > kMountpointMax) {
    return InvalidArgumentError("the mount point's name or FUSE_INIT is too long for the session table");
  }
  UniqueFd memory(::memfd_create("headrace-session", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) return Status::FromErrno(errno, "memfd_create");
  if (::ftruncate(memory.get(), sizeof(Layout)) != 0) return Status::FromErrno(errno, "size of the session table");
  // Nobody who holds it can make our mapping fault.
  if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) return Status::FromErrno(errno, "seal the session table");
  SessionTable table;
  HR_RETURN_IF_ERROR(table.Map(std::move(memory)));
  Layout& to = *table.layout_;
  to.version = kVersion;
  to.places_max = kOpenInodesMax;
  to.answers_max = kAnswersMax;
  to.init_size = static_cast<uint32_t>(identity.init_bytes.size());
  to.flags = identity.flags;
  to.device = identity.device;
  to.mountpoint_size = static_cast<uint32_t>(identity.mountpoint.size());
  std::memcpy(to.init_bytes, identity.init_bytes.data(), identity.init_bytes.size());
  std::memcpy(to.mountpoint, identity.mountpoint.data(), identity.mountpoint.size());
  std::memcpy(to.magic, kMagic, sizeof kMagic);
  table.identity_ = identity;
  for (uint32_t i = kAnswersMax; i-- > 0;) table.free_answers_.push_back(i);
  return table;
}

Result<SessionTable> SessionTable::Adopt(UniqueFd memory) {
  struct stat st;
  if (::fstat(memory.get(), &st) != 0) return Status::FromErrno(errno, "stat the session table");
  // What every version begins with: magic and version.
  char head[sizeof kMagic + sizeof(uint32_t)];
  HR_ASSIGN_OR_RETURN(size_t got, PreadFull(memory.get(), {reinterpret_cast<uint8_t*>(head), sizeof head}, 0));
  if (got != sizeof head || std::memcmp(head, kMagic, sizeof kMagic) != 0) return DataLossError("this is not a session table of headrace-fused");
  uint32_t version;
  std::memcpy(&version, head + sizeof kMagic, sizeof version);
  if (version != kVersion) {
    return FailedPreconditionError("the session's state has version " + std::to_string(version) + ", this program reads version " + std::to_string(kVersion));
  }
  if (static_cast<uint64_t>(st.st_size) != sizeof(Layout) || ::fcntl(memory.get(), F_GET_SEALS) != kSeals) {
    return DataLossError("the session table has a wrong size or is not sealed");
  }
  SessionTable table;
  HR_RETURN_IF_ERROR(table.Map(std::move(memory)));
  HR_RETURN_IF_ERROR(table.Check());
  return table;
}

Status SessionTable::Check() {
  const Layout& from = *layout_;
  if (from.places_max != kOpenInodesMax || from.answers_max != kAnswersMax || from.init_size > kInitBytesMax || from.mountpoint_size > kMountpointMax ||
      from.places_used > kOpenInodesMax || (from.committing != 0 && (from.place >= kOpenInodesMax || from.answer >= kAnswersMax))) {
    return DataLossError("the session table contradicts itself");
  }
  Replay();
  for (uint32_t i = from.places_used; i-- > 0;) {
    if (from.places[i].opens == 0) {
      free_places_.push_back(i);
    } else if (from.places[i].mode > static_cast<uint32_t>(IoMode::kCached) || from.places[i].node == 0) {
      return DataLossError("the session table has an open inode that cannot be");
    }
  }
  for (uint32_t i = kAnswersMax; i-- > 0;) {
    if (from.answers[i] == 0) free_answers_.push_back(i);
  }
  identity_.mountpoint.assign(from.mountpoint, from.mountpoint_size);
  identity_.init_bytes.assign(from.init_bytes, from.init_size);
  identity_.flags = from.flags;
  identity_.device = from.device;
  return OkStatus();
}

std::map<uint32_t, OpenInode> SessionTable::OpenInodes() const {
  std::map<uint32_t, OpenInode> open;
  for (uint32_t i = 0; i < layout_->places_used; ++i) {
    const Place& place = layout_->places[i];
    if (place.opens > 0) open.emplace(i, OpenInode{place.node, static_cast<IoMode>(place.mode), place.backing_id, place.opens});
  }
  return open;
}

std::map<uint64_t, uint32_t> SessionTable::Unanswered() const {
  std::map<uint64_t, uint32_t> answers;
  for (uint32_t i = 0; i < kAnswersMax; ++i) {
    if (layout_->answers[i] != 0) answers.emplace(layout_->answers[i], i);
  }
  return answers;
}

uint32_t SessionTable::TakePlace() {
  if (!free_places_.empty()) {
    const uint32_t place = free_places_.back();
    free_places_.pop_back();
    return place;
  }
  if (layout_->places_used >= kOpenInodesMax) return kNone;
  // A place that is counted as used and has no opens is free for a successor.
  return layout_->places_used++;
}

uint32_t SessionTable::Change(uint32_t place, const OpenInode& inode, uint64_t unique, int closes) {
  if (free_answers_.empty()) return kNone;
  const uint32_t answer = free_answers_.back();
  free_answers_.pop_back();
  Commit(place, inode, answer, unique, closes);
  return answer;
}

void SessionTable::TakeBack(uint32_t place, const OpenInode& inode, uint32_t answer, int closes) {
  Commit(place, inode, answer, 0, closes);
  free_answers_.push_back(answer);
}

void SessionTable::Commit(uint32_t place, const OpenInode& inode, uint32_t answer, uint64_t unique, int closes) {
  Layout& to = *layout_;
  to.place = place;
  to.answer = answer;
  to.unique = unique;
  to.values = {inode.node, inode.backing_id, inode.opens, static_cast<uint32_t>(inode.mode), 0};
  to.closes = closes;
  Fence();
  to.committing = 1;
  Fence();
  Replay();
  if (inode.opens == 0) free_places_.push_back(place);
}

// Can be done twice.
void SessionTable::Replay() {
  Layout& to = *layout_;
  if (to.committing == 0) return;
  to.places[to.place] = to.values;
  to.answers[to.answer] = to.unique;
  if (to.closes > 0) to.closing = to.closes;
  Fence();
  to.committing = 0;
  Fence();
}

void SessionTable::Answered(uint32_t answer) {
  layout_->answers[answer] = 0;
  free_answers_.push_back(answer);
}

void SessionTable::BeginRegister() {
  layout_->registering = 1;
  Fence();
}

void SessionTable::EndRegister(int backing_id) {
  if (backing_id > 0) layout_->last_registered = backing_id;
  Fence();
  layout_->registering = 0;
  Fence();
}

void SessionTable::Closed() {
  layout_->closing = 0;
  Fence();
}

std::vector<int> SessionTable::Suspects() const {
  std::vector<int> ids{layout_->closing, layout_->last_registered};
  // The kernel gives ids out in turn.
  if (layout_->registering != 0) ids.push_back(layout_->last_registered + 1);
  std::erase_if(ids, [](int id) { return id <= 0; });
  for (const auto& [place, inode] : OpenInodes()) std::erase(ids, inode.backing_id);
  return ids;
}

void SessionTable::Clear() {
  for (uint32_t i = 0; i < layout_->places_used; ++i) layout_->places[i] = {};
  for (uint64_t& answer : layout_->answers) answer = 0;
  layout_->places_used = 0;
  layout_->closing = 0;
  free_places_.clear();
  free_answers_.clear();
  for (uint32_t i = kAnswersMax; i-- > 0;) free_answers_.push_back(i);
}

}  // namespace headrace::kernel
