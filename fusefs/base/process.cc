#include "fusefs/base/process.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/text.h"

namespace headrace {

bool HasSupervisor() {
  const char* path = std::getenv("NOTIFY_SOCKET");
  return path != nullptr && *path != '\0';
}

std::chrono::microseconds WatchdogInterval() {
  const char* usec = std::getenv("WATCHDOG_USEC");
  const char* pid = std::getenv("WATCHDOG_PID");
  if (usec == nullptr || (pid != nullptr && pid != std::to_string(::getpid()))) return {};
  const auto number = ParseU64(usec);
  return std::chrono::microseconds(number.ok() ? *number : 0);
}

Status NotifySupervisor(const std::string& state, std::span<const int> descriptors) {
  if (!HasSupervisor()) return OkStatus();
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  size_t length = std::strlen(path);
  if (length >= sizeof address.sun_path) return InvalidArgumentError("NOTIFY_SOCKET is too long");
  std::memcpy(address.sun_path, path, length);
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // abstract socket
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Status::FromErrno(errno, "socket");
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) return Status::FromErrno(errno, "connect to NOTIFY_SOCKET");
  return SendMessage(fd.get(), state, descriptors).Annotate("NOTIFY_SOCKET");
}

Result<UniqueFd> LockRoot(const std::string& root, const std::string& program) {
  HR_RETURN_IF_ERROR(MakeDirs(root));
  HR_ASSIGN_OR_RETURN(UniqueFd lock, OpenFile(root + "/lock", O_RDWR | O_CREAT));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Status::FromErrno(errno, "lock " + root);
    return FailedPreconditionError("another " + program + " uses " + root + " (" + root + "/lock is held)");
  }
  return lock;
}

Status RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return Status::FromErrno(errno, "getrlimit(RLIMIT_NOFILE)");
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return Status::FromErrno(errno, "setrlimit(RLIMIT_NOFILE)");
  return OkStatus();
}

uint64_t MemoryLimit() {
  uint64_t limit = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  Result<std::string> groups = ReadFile("/proc/self/cgroup", 64 << 10);
  if (!groups.ok()) return limit;
  constexpr std::string_view kUnified = "0::";  // cgroups(7): the line of version 2
  size_t at = groups->starts_with(kUnified) ? 0 : groups->find("\n0::");
  if (at == std::string::npos) return limit;
  at = groups->find(kUnified, at) + kUnified.size();
  std::string path = groups->substr(at, groups->find('\n', at) - at);
  // The tightest of the group and its parents counts. "max" is no number.
  while (!path.empty() && path != "/") {
    Result<std::string> text = ReadFile("/sys/fs/cgroup" + path + "/memory.max", 64);
    Result<uint64_t> bytes = text.ok() ? ParseU64(text->substr(0, text->find('\n'))) : Result<uint64_t>(text.status());
    if (bytes.ok()) limit = std::min(limit, *bytes);
    path.resize(path.rfind('/'));
  }
  return limit;
}

}  // namespace headrace
