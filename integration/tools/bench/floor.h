// The other two controls: what processor time the bytes of an image cost at least, and what a plain reader gets. Errors throw.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_FLOOR_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_FLOOR_H_

#include <cstdint>
#include <string>

namespace headrace::bench {

struct CpuFloor {
  uint64_t bytes = 0;             // decoded
  uint64_t compressed_bytes = 0;
  double seconds = 0;             // of the thread that worked longest
  double cpu_s = 0;               // of all threads
};

// Decodes, verifies and copies once every chunk of the layers, at most `limit` decoded bytes (0: all). The compressed bytes come
// from the page cache or the disk; that is not counted, neither in seconds nor in cpu_s.
CpuFloor MeasureCpuFloor(const std::string& layout, unsigned threads, uint64_t limit);

struct ReadFloor {
  uint64_t bytes = 0;
  double seconds = 0;
  double cpu_s = 0;
};

// pread(2) of 16 MiB at a time by several threads, in order, of all *.safetensors; the bytes are not looked at.
ReadFloor MeasureReadFloor(const std::string& directory, unsigned threads);

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_FLOOR_H_
