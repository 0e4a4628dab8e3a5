#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "integration/tools/fs/cases.h"

namespace headrace::fs {
namespace {

// In a process of its own, standard output and error caught. How it ended, and what it said.
void Child(Log& log, const std::string& what, const std::function<void()>& body) {
  int ends[2];
  if (::pipe(ends) != 0) Die("pipe");
  const pid_t child = ::fork();
  if (child < 0) Die("fork");
  if (child == 0) {
    ::dup2(ends[1], 1);
    ::close(ends[0]);
    body();
    ::_exit(99);
  }
  ::close(ends[1]);
  std::string said(4096, '\0');
  const ssize_t got = ::read(ends[0], said.data(), said.size());
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  log.Words(what, WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit code " + std::to_string(WEXITSTATUS(status)));
  if (got > 0) log.Words(what + " says", said.substr(0, static_cast<size_t>(got)));
}

// The exit code is 100 + errno if it cannot be run.
void Programs(Log& log) {
  for (const std::string& path : CasePaths()) {
    Child(log, "run " + path, [&] {
      ::execl(path.c_str(), path.c_str(), nullptr);
      ::_exit(100 + errno);
    });
  }
  Child(log, "run by descriptor", [] {
    const int fd = ::open("setuid", O_RDONLY);
    char* arguments[] = {const_cast<char*>("setuid"), nullptr};
    ::fexecve(fd, arguments, environ);
    ::_exit(100 + errno);
  });
}

void TouchBehind(Log& log, const char* path, int flags) {
  struct stat st {};
  if (::stat(path, &st) != 0) return log.Done(std::string("stat ") + path, false);
  const size_t whole = (static_cast<size_t>(st.st_size) + 4095) / 4096 * 4096;
  for (const size_t place : {size_t{0}, static_cast<size_t>(st.st_size), whole, whole + 4096}) {
    Child(log, std::string("touch ") + path + " at " + std::to_string(place), [&] {
      const int fd = ::open(path, O_RDONLY);
      const auto* const at = static_cast<const volatile char*>(::mmap(nullptr, whole + 8192, PROT_READ, flags, fd, 0));
      ::_exit(at[place] == 0 ? 0 : 1);
    });
  }
  // A call that is given such an address gets EFAULT, or what comes before it.
  const Descriptor fd(::open(path, O_RDONLY | O_CLOEXEC));
  void* const at = ::mmap(nullptr, whole + 4096, PROT_READ, flags, fd.get(), 0);
  if (at == MAP_FAILED) return log.Done(std::string("map ") + path, false);
  int ends[2];
  if (::pipe(ends) != 0) Die("pipe");
  log.Call(std::string("write from behind the end of ") + path, ::write(ends[1], static_cast<char*>(at) + whole, 100));
  ::close(ends[0]);
  ::close(ends[1]);
  ::munmap(at, whole + 4096);
}

void Events(Log& log) {
  const Descriptor watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  log.Done("watch d", ::inotify_add_watch(watch.get(), "d", IN_ALL_EVENTS) >= 0);
  log.Done("watch d/file", ::inotify_add_watch(watch.get(), "d/file", IN_ALL_EVENTS) >= 0);
  {
    const Descriptor fd(::open("d/file", O_RDONLY | O_CLOEXEC));
    char byte;
    log.Call("read", ::read(fd.get(), &byte, 1));
    struct stat st {};
    ::stat("d/file", &st);
  }
  alignas(inotify_event) char buffer[8192];
  const ssize_t got = ::read(watch.get(), buffer, sizeof buffer);
  log.Done("events", got > 0);
  for (ssize_t at = 0; at < got;) {
    const auto* const event = reinterpret_cast<const inotify_event*>(buffer + at);
    log.Words("event", std::to_string(event->mask) + " " + (event->len > 0 ? event->name : ""));
    at += static_cast<ssize_t>(sizeof *event + event->len);
  }
}

// statx: what it says that it knows.
void Statx(Log& log) {
  for (const char* path : {"d/file", "d", "fifo", "other/link"}) {
    struct statx stx {};
    log.Call(std::string("statx ") + path, ::statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &stx));
    log.Words(std::string("statx mask ") + path, std::to_string(stx.stx_mask & STATX_BASIC_STATS));
    log.Call(std::string("statx odd ") + path, ::statx(AT_FDCWD, path, 1 << 30, STATX_BASIC_STATS, &stx));
  }
}

}  // namespace

void SpecialCases(Log& log) {
  Programs(log);
  for (const char* path : {"d/file", "d/random", "weights/model.bin", "sizes/4096", "sizes/4097"}) {
    TouchBehind(log, path, MAP_SHARED);
    TouchBehind(log, path, MAP_PRIVATE);
  }
  Events(log);
  Statx(log);
}

}  // namespace headrace::fs
