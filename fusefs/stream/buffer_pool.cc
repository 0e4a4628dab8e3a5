#include "fusefs/stream/buffer_pool.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <utility>

namespace headrace::stream {
namespace {

constexpr size_t kAlignment = 4096;              // O_DIRECT and huge pages want whole pages
constexpr size_t kSmallest = 16 * 1024;          // below this malloc is as good: not kept
constexpr size_t kLargest = size_t{1} << 40;

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kHugeFrom = size_t{1} << 20;    // from here on whole huge pages: the first touch of memory costs a fifth of what it does otherwise

// Whole huge pages from kHugeFrom on; below, four classes for each doubling: at most a quarter is wasted.
size_t Capacity(size_t size) {
  if (size <= kSmallest) return kSmallest;
  if (size > kHugeFrom) return (size + kHugePage - 1) / kHugePage * kHugePage;
  const size_t step = std::bit_floor(size - 1) / 4;
  const size_t rounded = (size + step - 1) / step * step;
  return (rounded + kAlignment - 1) / kAlignment * kAlignment;
}

// Not from the heap: blocks of megabytes that come and go between threads would stay in its arenas.
uint8_t* MapHuge(size_t capacity) {
  void* mapped = ::mmap(nullptr, capacity + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<uint8_t*>(mapped);
  const size_t head = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (head > 0) ::munmap(begin, head);
  if (head < kHugePage) ::munmap(begin + head + capacity, kHugePage - head);
  ::madvise(begin + head, capacity, MADV_HUGEPAGE);  // a wish; without it there are small pages
  return begin + head;
}

uint8_t* Allocate(size_t capacity) {
  if (capacity >= kHugePage) return MapHuge(capacity);
  return static_cast<uint8_t*>(std::aligned_alloc(kAlignment, capacity));
}

void Free(uint8_t* data, size_t capacity) {
  if (capacity >= kHugePage) {
    ::munmap(data, capacity);
  } else {
    std::free(data);
  }
}

}  // namespace

Buffer::~Buffer() {
  if (data_ != nullptr) pool_->Put(data_, capacity_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::move(other.pool_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Buffer old(std::move(*this));
    pool_ = std::move(other.pool_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
  }
  return *this;
}

BufferPool::~BufferPool() {
  for (auto& [capacity, list] : idle_by_capacity_) {
    for (uint8_t* data : list) Free(data, capacity);
  }
}

Buffer BufferPool::Get(size_t size) {
  Buffer out;
  if (size > kLargest) return out;
  const size_t capacity = Capacity(size);
  {
    MutexLock lock(mu_);
    used_bytes_ += capacity;
    auto it = idle_by_capacity_.find(capacity);
    if (it != idle_by_capacity_.end() && !it->second.empty()) {
      out.data_ = it->second.back();
      it->second.pop_back();
      idle_bytes_ -= capacity;
    }
  }
  if (out.data_ == nullptr) out.data_ = Allocate(capacity);
  if (out.data_ == nullptr) {
    MutexLock lock(mu_);
    used_bytes_ -= capacity;
    return out;
  }
  out.pool_ = shared_from_this();
  out.size_ = size;
  out.capacity_ = capacity;
  return out;
}

void BufferPool::Put(uint8_t* data, size_t capacity) {
  {
    MutexLock lock(mu_);
    used_bytes_ -= capacity;
    if (capacity > kSmallest && used_bytes_ + idle_bytes_ + capacity <= bytes_max_) {
      idle_by_capacity_[capacity].push_back(data);
      idle_bytes_ += capacity;
      return;
    }
  }
  Free(data, capacity);
}

void BufferPool::Trim(size_t idle_bytes) {
  std::vector<std::pair<uint8_t*, size_t>> freed;
  {
    MutexLock lock(mu_);
    for (auto& [capacity, list] : idle_by_capacity_) {
      while (!list.empty() && idle_bytes_ > idle_bytes) {
        freed.emplace_back(list.back(), capacity);
        list.pop_back();
        idle_bytes_ -= capacity;
      }
    }
  }
  for (const auto& [data, capacity] : freed) Free(data, capacity);
}

size_t BufferPool::idle_bytes() const {
  MutexLock lock(mu_);
  return idle_bytes_;
}

}  // namespace headrace::stream
