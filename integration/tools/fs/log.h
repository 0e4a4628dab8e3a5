// What calls said, to be compared with what the same calls said elsewhere: the common part of fs-cases and fs-stress.
//
// Both run the same code in two directories (the mount under test, and the same tree on a native file system) and compare the two logs, so
// that no expectation is written down by hand. Not thread-safe: one log for each run of an operation.
#ifndef HEADRACE_INTEGRATION_TOOLS_FS_LOG_H_
#define HEADRACE_INTEGRATION_TOOLS_FS_LOG_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace headrace::fs {

// "ENOENT".
std::string ErrnoName(int code);

// Text on one line: control characters, '\' and bytes outside ASCII as \xNN; long texts are cut and say so.
std::string Printable(std::string_view text);

class Log {
 public:
  // The outcome of a system call that answers -1 with errno, or a number that matters.
  void Call(const std::string& what, int64_t result);
  // The same if the number does not matter (descriptors).
  void Done(const std::string& what, bool ok);
  void Words(const std::string& what, const std::string& outcome);
  // Bytes that were read; kept whole.
  void Bytes(const std::string& what, const void* data, size_t size);

  // "" if both are the same, else the first difference: `mine`, `theirs` say whose they are.
  std::string Difference(const Log& other) const;
  uint64_t bytes() const { return bytes_; }

  struct Line {
    std::string what;
    std::string outcome;
    bool is_data = false;  // `outcome` is raw bytes
  };
  const std::vector<Line>& lines() const { return lines_; }

 private:
  std::vector<Line> lines_;
  uint64_t bytes_ = 0;
};

// Draws that are the same wherever the seed is the same.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  // Less than `bound`, which is not 0.
  uint64_t Below(uint64_t bound) { return engine_() % bound; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  template <typename T, size_t N>
  const T& Of(const T (&choices)[N]) {
    return choices[Below(N)];
  }

 private:
  std::mt19937_64 engine_;
};

// An address where nothing is; the compiler does not know.
void* Nowhere();

// Ends the process: something that has nothing to do with the file system under test does not work.
[[noreturn]] void Die(const std::string& what);

// A descriptor that is closed at the end; -1 is none, errno as open(2) left it.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  void Close();

 private:
  int fd_;
};

}  // namespace headrace::fs

#endif  // HEADRACE_INTEGRATION_TOOLS_FS_LOG_H_
