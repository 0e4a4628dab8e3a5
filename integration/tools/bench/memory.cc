#include "integration/tools/bench/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "integration/tools/bench/common.h"

namespace headrace::bench {

HugeMemory::HugeMemory(uint64_t size) : map_size_(size + kHugePage), size_(size) {
  map_ = mmap(nullptr, map_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map_ == MAP_FAILED) FailErrno("mmap of destination memory");
  const auto address = reinterpret_cast<uintptr_t>(map_);
  data_ = reinterpret_cast<uint8_t*>((address + kHugePage - 1) / kHugePage * kHugePage);
  (void)madvise(data_, size_, MADV_HUGEPAGE);  // without huge pages it is only slower
  memset(data_, 1, size_);
}

HugeMemory::~HugeMemory() {
  if (map_ != nullptr) munmap(map_, map_size_);
}

HugeMemory::HugeMemory(HugeMemory&& other) noexcept { *this = std::move(other); }

HugeMemory& HugeMemory::operator=(HugeMemory&& other) noexcept {
  std::swap(map_, other.map_);
  std::swap(map_size_, other.map_size_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

uint8_t* Ring::Next(uint64_t size) {
  size = (size + kPage - 1) / kPage * kPage;
  if (size > size_) Fail("a block is larger than its ring");
  if (at_ + size > size_) at_ = 0;
  uint8_t* const out = base_ + at_;
  at_ += size;
  return out;
}

}  // namespace headrace::bench
