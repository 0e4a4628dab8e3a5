// What the tests of the registry client share.
#ifndef HEADRACE_TEST_REGISTRY_CLIENT_TEST_UTIL_H_
#define HEADRACE_TEST_REGISTRY_CLIENT_TEST_UTIL_H_

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <random>
#include <string>

#include "fusefs/base/mutex.h"
#include "fusefs/registry/range_source.h"

namespace headrace::test {

inline std::string RandomBytes(size_t size, unsigned long seed) {
  std::mt19937_64 random(seed);
  std::string out(size, '\0');
  for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(out.data() + i, &word, std::min(sizeof word, size - i));
  }
  return out;
}

// Keeps what a Fetch delivers; the test waits for its end, 20 s at most.
class CollectingSink : public registry::RangeSink {
 public:
  explicit CollectingSink(uint64_t stop_after = UINT64_MAX) : stop_after_(stop_after) {}
  void OnSource(uint64_t source) override {
    MutexLock lock(mu_);
    source_ = source;
  }
  uint64_t source() {
    MutexLock lock(mu_);
    return source_;
  }
  bool OnData(std::span<const uint8_t> data) override {
    MutexLock lock(mu_);
    data_.append(reinterpret_cast<const char*>(data.data()), data.size());
    changed_.NotifyAll();
    return data_.size() < stop_after_;
  }
  void OnDone(Status status) override {
    MutexLock lock(mu_);
    ++done_calls_;
    status_ = std::move(status);
    changed_.NotifyAll();
  }
  Status Wait() {
    MutexLock lock(mu_);
    if (!changed_.WaitFor(mu_, std::chrono::seconds(20), [this] { return status_.has_value(); })) {
      return InternalError("the sink got no OnDone in 20 s");
    }
    return *status_;
  }
  bool WaitForData(size_t n) {
    MutexLock lock(mu_);
    return changed_.WaitFor(mu_, std::chrono::seconds(20), [&] { return data_.size() >= n; });
  }
  std::string data() {
    MutexLock lock(mu_);
    return data_;
  }
  int done_calls() {
    MutexLock lock(mu_);
    return done_calls_;
  }

 private:
  const uint64_t stop_after_;
  Mutex mu_;
  CondVar changed_;
  uint64_t source_ = 0;
  std::string data_;
  std::optional<Status> status_;
  int done_calls_ = 0;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_REGISTRY_CLIENT_TEST_UTIL_H_
