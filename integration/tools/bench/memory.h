// Destination memory of the readers: huge pages, allocated and touched before the clock starts, used again and again.
// Errors throw. A HugeMemory owns its pages; a Ring is a view of some of them for one thread.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_MEMORY_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_MEMORY_H_

#include <cstdint>

namespace headrace::bench {

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kHugePage = uint64_t{2} << 20;

// Memory of huge pages, all of it touched.
class HugeMemory {
 public:
  HugeMemory() = default;
  explicit HugeMemory(uint64_t size);
  ~HugeMemory();
  HugeMemory(HugeMemory&& other) noexcept;
  HugeMemory& operator=(HugeMemory&& other) noexcept;
  uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  void* map_ = nullptr;
  uint64_t map_size_ = 0;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

class Ring {
 public:
  Ring(uint8_t* base, uint64_t size) : base_(base), size_(size) {}
  // The next `size` bytes, page-aligned; never more than size().
  uint8_t* Next(uint64_t size);
  uint64_t size() const { return size_; }

 private:
  uint8_t* base_;
  uint64_t size_;
  uint64_t at_ = 0;
};

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_MEMORY_H_
