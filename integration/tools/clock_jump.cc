// libclock-jump.so: preloaded into a program, it makes its wall clock jump, and no other program's: CLOCK_REALTIME (and time(2), gettimeofday(2)) is off by the number of seconds that
// stands in the file $HEADRACE_CLOCK_OFFSET at that moment. The other clocks are right. For the integration tests.
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>

namespace {

time_t Offset() {
  static const char* const path = std::getenv("HEADRACE_CLOCK_OFFSET");
  if (path == nullptr) return 0;
  const int before = errno;
  char text[32] = {};
  const long fd = ::syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    if (::syscall(SYS_read, fd, text, sizeof text - 1) < 0) text[0] = '\0';
    ::syscall(SYS_close, fd);
  }
  errno = before;
  return static_cast<time_t>(std::atoll(text));
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const long result = ::syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += Offset();
  return static_cast<int>(result);
}

__attribute__((visibility("default"))) int gettimeofday(timeval* __restrict now, void* __restrict) noexcept {
  timespec precise;
  if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return -1;
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

__attribute__((visibility("default"))) time_t time(time_t* out) noexcept {
  timespec precise;
  if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return -1;
  if (out != nullptr) *out = precise.tv_sec;
  return precise.tv_sec;
}

}  // extern "C"
