// ReplaySession: what the patterns of one process have in common: the files, the memory that bytes go to, the checksum, the clocks.
//
// Checksum: the sum, modulo 2^64, over all pages of 4 KiB of a mix of XXH3(page), file and position: independent of the order of
// reading, so every pattern that reads everything has the same; any wrong byte changes it. Taken from the destination while it is
// in the processor's cache. Sampled, it takes one page in 16, chosen by file and position; all bytes are read all the same.
//
// Memory: one ring of huge pages for each thread, allocated and touched by the constructor, used again and again: a loader's
// destination is not the file system's cost, and a model larger than memory can be replayed.
//
// Errors throw. Open, Arrived and Take may be called by many threads at once; a ring belongs to one thread.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_REPLAY_SESSION_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_REPLAY_SESSION_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "integration/tools/bench/memory.h"
#include "integration/tools/bench/replay_files.h"

namespace headrace::bench {

struct ReplayOptions {
  std::string pattern;
  std::string directory;
  std::string like;  // directory of the same files: the memory is ready before `directory` is there; "" = it is there
  unsigned processes = 1;
  uint64_t limit = 0;  // 0: everything
  uint64_t ring = 0;   // bytes of destination memory of this process
  uint64_t seed = 1;
  bool sampled = false;
};

// What a process found; plain data, because it crosses fork by shared memory. Times are monotonic seconds.
struct ReplayReport {
  uint64_t bytes = 0;
  uint64_t checksum = 0;
  double begin = 0;
  double end = 0;
  double first_byte_s = 0;  // since the open of the first file
  double open_s = 0;        // in open(2), all files and threads together
  double cpu_s = 0;
  uint64_t major_faults = 0;
  char error[480] = "";
};

class ReplaySession {
 public:
  // `number`: which of options.processes processes this one is. Each of `threads` threads gets a ring of at least `block` bytes.
  ReplaySession(const ReplayOptions& options, unsigned number, unsigned threads, uint64_t block);

  const ReplayOptions& options() const { return options_; }
  const Model& model() const { return model_; }
  unsigned number() const { return number_; }
  unsigned threads() const { return threads_; }
  Ring& ring(unsigned thread) { return rings_[thread]; }
  std::mt19937_64& random() { return random_; }  // one thread

  // open(2), timed.
  UniqueFd Open(const ModelFile& file, int flags);
  // The first byte of a file is in user memory.
  void Arrived(const ModelFile& file);
  // `data` holds the bytes of [begin, begin + size) of the file: they go into the checksum.
  void Take(const ModelFile& file, uint64_t begin, const uint8_t* data, uint64_t size);
  // Runs `work(thread)` on threads() threads; the first failure is thrown when all have ended.
  void Parallel(const std::function<void(unsigned)>& work);
  // What Take and Open counted.
  void Count(ReplayReport& report) const;

 private:
  ReplayOptions options_;
  unsigned number_;
  unsigned threads_;
  Model model_;
  HugeMemory memory_;
  std::vector<Ring> rings_;
  std::mt19937_64 random_;
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> checksum_{0};
  std::atomic<bool> arrived_{false};
  mutable std::mutex mutex_;  // guards the rest
  double first_open_ = 0;
  double first_byte_ = 0;
  double open_s_ = 0;
};

// The patterns, each from the first open to the last byte in memory.
struct Pattern {
  const char* name;
  unsigned threads;
  uint64_t block;  // bytes that a thread has in its hands at once; 0: as many as there are
  void (*run)(ReplaySession&);
};
const Pattern* FindPattern(const std::string& name);
std::vector<std::string> PatternNames();

// replay_mapped.cc
void RunHeaders(ReplaySession& session);            // P1
void RunMappedForward(ReplaySession& session);      // P2, P9
void RunMappedInterleaved(ReplaySession& session);  // P2f
void RunMappedRandom(ReplaySession& session);       // P3, P3s
void RunPopulated(ReplaySession& session);          // P8
// replay_read.cc
void RunFilePerThread(ReplaySession& session);  // P4
void RunSlices(ReplaySession& session);         // P5
void RunBlocks(ReplaySession& session);         // P6
void RunDirect(ReplaySession& session);         // P7
void RunWhole(ReplaySession& session);          // P10

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_REPLAY_SESSION_H_
