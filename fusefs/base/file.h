// Files: owned descriptors and the few whole-operation helpers that everybody needs (full reads and writes, durable replacement).
// UniqueFd closes what it holds; all functions block on the local disk and may be called from any thread.
#ifndef HEADRACE_FUSEFS_BASE_FILE_H_
#define HEADRACE_FUSEFS_BASE_FILE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "fusefs/base/status.h"

namespace headrace {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() { Reset(); }
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset();

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC; the error names the path.
Result<UniqueFd> OpenFile(const std::string& path, int flags, unsigned mode = 0600);
// Reads until `buffer` is full or end of file; returns the bytes read.
Result<size_t> PreadFull(int fd, std::span<uint8_t> buffer, uint64_t offset);
Status PwriteFull(int fd, std::span<const uint8_t> data, uint64_t offset);
// What the kernel took of writes through this open file description and could not bring to the disk; told once for each description. The pages may be gone, and a read gives something old.
// Does not wait.
Status WriteBackError(int fd);
Status WriteFull(int fd, std::span<const uint8_t> data);
// Whole file as a string; a file above `limit` bytes is ResourceExhausted.
Result<std::string> ReadFile(const std::string& path, uint64_t limit);
// What a file that was written must survive.
enum class Durability {
  kProcessCrash,  // readers see the old or the new content; after a crash of the machine it may be missing, old, or empty
  kMachineCrash,  // the new content is on the disk when the call returns (fsync of file and directory: milliseconds)
};
// Replacement as a whole: temporary file in the same directory, rename.
Status WriteFileAtomic(const std::string& path, std::string_view data, unsigned mode = 0600,
                       Durability durability = Durability::kMachineCrash);
// mkdir -p; an existing directory is fine.
Status MakeDirs(const std::string& path, unsigned mode = 0700);
Status FsyncDir(const std::string& path);
// rm -rf; a missing path is fine, and so is another caller who removes the same tree. Never crosses into another mounted file system.
Status RemoveAll(const std::string& path);

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_FILE_H_
