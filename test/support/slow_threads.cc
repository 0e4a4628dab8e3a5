// A library to preload (integration/slow-threads): threads of the program sleep now and then where they take or give
// back a mutex, some threads much more often than others. What a test takes for granted about who comes first falls
// over. Settings: HEADRACE_SLOW_SEED (which threads are slow and when), HEADRACE_SLOW_EVERY (one sleep in so many locks
// of an ordinary thread; default 300), HEADRACE_SLOW_US (the longest sleep; default 20000).
#include <dlfcn.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

uint64_t Setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  const uint64_t value = text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
  return value == 0 ? otherwise : value;
}

// Trivial on purpose: constructors of the program take locks before ours would have run.
struct Thread {
  uint64_t random;
  uint64_t weight;
  bool known;
};
thread_local Thread thread;
std::atomic<uint64_t> threads{0};

uint64_t Next() {
  uint64_t& x = thread.random;  // xorshift64 (Marsaglia, Xorshift RNGs)
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}

void MeetThread() {
  static const uint64_t seed = Setting("HEADRACE_SLOW_SEED", 1);
  thread.known = true;
  thread.random = seed * 0x9e3779b97f4a7c15 ^ (threads.fetch_add(1) + 1) * 0xd1b54a32d192ed03;
  if (thread.random == 0) thread.random = 1;
  for (int i = 0; i < 8; ++i) Next();
  static constexpr std::array<uint64_t, 5> kWeights{0, 1, 1, 4, 16};
  thread.weight = kWeights[Next() % kWeights.size()];
}

void MaySleep() {
  static const uint64_t every = Setting("HEADRACE_SLOW_EVERY", 300), most_us = Setting("HEADRACE_SLOW_US", 20'000);
  if (!thread.known) MeetThread();
  if (thread.weight == 0 || Next() % every >= thread.weight) return;
  const uint64_t us = Next() % most_us;
  const timespec pause{static_cast<time_t>(us / 1'000'000), static_cast<long>(us % 1'000'000 * 1000)};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
}

using MutexCall = int (*)(pthread_mutex_t*);
MutexCall Real(const char* name) { return reinterpret_cast<MutexCall>(::dlsym(RTLD_NEXT, name)); }

}  // namespace

extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  static const MutexCall real = Real("pthread_mutex_lock");
  MaySleep();
  return real(mutex);
}

extern "C" int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  static const MutexCall real = Real("pthread_mutex_unlock");
  const int result = real(mutex);
  MaySleep();
  return result;
}
