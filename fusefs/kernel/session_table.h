// SessionTable: what a FUSE session is, in memory that outlives the process: the INIT bytes, and for each open inode its mode, backing id and number of opens. A
// memfd that is mapped here and kept by whoever keeps the descriptor of /dev/fuse too (README.md, "Takeover"; byte-level format there).
//
// The process may be killed between any two instructions. So each change is written as one transaction (its final values first, then a mark, then the values in
// their places), and names the request that caused it: if the kernel hands that request out again, the change is known to have been made already.
//
// Ownership: owns descriptor and mapping; moves. Threads: none of its own and no lock: its user (InodeModes) serialises all calls but the constant ones.
// Blocks: no; a few stores to memory. Errors: FailedPrecondition names the version that cannot be read; DataLoss: it contradicts itself.
// Limits: kOpenInodesMax open inodes, kAnswersMax answers under way at one time.
#ifndef HEADRACE_FUSEFS_KERNEL_SESSION_TABLE_H_
#define HEADRACE_FUSEFS_KERNEL_SESSION_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/base/status.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::kernel {

enum class IoMode : uint8_t {
  kPassthrough,  // the kernel reads the sealed backing file itself
  kDirect,       // every read() is a request; mmap goes through the page cache
  kCached,       // page cache, kept for ever: the content never changes
};

// Which connection this is.
struct SessionIdentity {
  std::string mountpoint;
  std::string init_bytes;  // the raw INIT request
  uint64_t flags = 0;      // what kernel and we agreed on (wire::k...)
  uint64_t device = 0;     // st_dev of the file system
};

struct OpenInode {
  vfs::NodeId node = 0;
  IoMode mode = IoMode::kDirect;
  int backing_id = 0;
  uint32_t opens = 0;
};

class SessionTable {
 public:
  static constexpr uint32_t kVersion = 1;
  static constexpr uint32_t kOpenInodesMax = 1u << 20;
  static constexpr uint32_t kAnswersMax = 1024;
  static constexpr uint32_t kNone = ~0u;

  // An empty table for a new connection.
  static Result<SessionTable> Create(const SessionIdentity& identity);
  // A table that another process left. A transaction that was cut off is finished first.
  static Result<SessionTable> Adopt(UniqueFd memory);
  SessionTable(SessionTable&& other) noexcept;
  SessionTable& operator=(SessionTable&&) = delete;
  ~SessionTable();

  // Borrowed: for those who keep it.
  int memory() const { return memory_.get(); }
  const SessionIdentity& identity() const { return identity_; }

  // What is open, by place.
  std::map<uint32_t, OpenInode> OpenInodes() const;
  // Requests whose change was made and whose answer may not have reached the kernel: unique -> answer.
  std::map<uint64_t, uint32_t> Unanswered() const;

  // A free place, kNone if there is none. Nothing is written before Change.
  uint32_t TakePlace();
  // Writes `inode` to its place (opens == 0: the place becomes free) as the effect of the request `unique`, in one transaction. `closes`: a backing id that is to be
  // closed afterwards. The answer to be given to Answered(); kNone if too many are under way (then nothing was changed).
  uint32_t Change(uint32_t place, const OpenInode& inode, uint64_t unique, int closes = 0);
  // The same, as the end of `answer` whose request the kernel gave up.
  void TakeBack(uint32_t place, const OpenInode& inode, uint32_t answer, int closes = 0);
  // The kernel has the answer.
  void Answered(uint32_t answer);

  // A backing id is being asked for: between the two a successor must expect one that nobody knows.
  void BeginRegister();
  void EndRegister(int backing_id);  // <= 0: refused
  // The id that `closes` named is closed.
  void Closed();
  // Backing ids that a predecessor may have left open in between and that no open inode has. The kernel refuses to close what is not open.
  std::vector<int> Suspects() const;

  // Forgets everything: the connection ended.
  void Clear();

 private:
  struct Layout;
  SessionTable() = default;
  Status Map(UniqueFd memory);
  Status Check();
  uint32_t TakeAnswer();
  void Commit(uint32_t place, const OpenInode& inode, uint32_t answer, uint64_t unique, int closes);
  void Replay();

  UniqueFd memory_;
  Layout* layout_ = nullptr;
  SessionIdentity identity_;
  std::vector<uint32_t> free_places_;
  std::vector<uint32_t> free_answers_;
};

}  // namespace headrace::kernel

#endif  // HEADRACE_FUSEFS_KERNEL_SESSION_TABLE_H_
