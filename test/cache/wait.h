// Waiting for what other threads of the cache do, with a deadline.
#ifndef HEADRACE_TEST_CACHE_WAIT_H_
#define HEADRACE_TEST_CACHE_WAIT_H_

#include <fcntl.h>
#include <sys/file.h>

#include <chrono>
#include <string>
#include <thread>

#include "fusefs/base/file.h"

namespace headrace::cache {

// False: it did not come true within 20 s.
template <typename Predicate>
bool WaitUntil(Predicate predicate) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!predicate()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Nobody has the content of this map open. Who sealed it may hold it a little longer than the test does, and with it the
// map's lock; whoever lets go of it sets the time of its last use.
inline bool WaitUntilUnused(const std::string& map_path) {
  const UniqueFd map(::open(map_path.c_str(), O_RDWR | O_CLOEXEC));
  return map.valid() && WaitUntil([&] { return ::flock(map.get(), LOCK_EX | LOCK_NB) == 0; });
}

}  // namespace headrace::cache

#endif  // HEADRACE_TEST_CACHE_WAIT_H_
