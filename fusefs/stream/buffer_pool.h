// Buffers for compressed and decoded chunks and for assembled reads; uninitialised memory, recycled by size class so that big
// blocks are not mapped and faulted in again for every chunk. Buffers may outlive the pool. Any thread; nothing blocks.
#ifndef HEADRACE_FUSEFS_STREAM_BUFFER_POOL_H_
#define HEADRACE_FUSEFS_STREAM_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "fusefs/base/mutex.h"

namespace headrace::stream {

class BufferPool;

class Buffer {
 public:
  Buffer() = default;
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  bool valid() const { return data_ != nullptr; }
  std::span<uint8_t> bytes() { return {data_, size_}; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  friend class BufferPool;
  std::shared_ptr<BufferPool> pool_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  // Keeps what is given back as long as all of it, in use and unused, is at most `bytes_max`. REQUIRES: owned by a shared_ptr.
  explicit BufferPool(size_t bytes_max) : bytes_max_(bytes_max) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // Invalid if there is no memory. size > 0.
  Buffer Get(size_t size);
  // Gives unused memory back to the system until at most `idle_bytes` of it are left: when nothing more is to come for a while.
  void Trim(size_t idle_bytes);
  size_t idle_bytes() const;

 private:
  friend class Buffer;
  void Put(uint8_t* data, size_t capacity);

  const size_t bytes_max_;
  mutable Mutex mu_;
  size_t used_bytes_ HR_GUARDED_BY(mu_) = 0;
  size_t idle_bytes_ HR_GUARDED_BY(mu_) = 0;
  std::map<size_t, std::vector<uint8_t*>> idle_by_capacity_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_BUFFER_POOL_H_
