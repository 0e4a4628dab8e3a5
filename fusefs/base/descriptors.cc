#include "fusefs/base/descriptors.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "fusefs/base/text.h"

namespace headrace {
namespace {

constexpr int kFirstStored = 3;  // sd_listen_fds(3): SD_LISTEN_FDS_START
constexpr uint64_t kStoredMax = 64;

Result<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path[0] != '/' || path.size() >= sizeof address.sun_path) {
    return InvalidArgumentError("unix socket \"" + path + "\": an absolute path of at most 107 bytes is needed");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace

Status SendMessage(int socket, std::string_view bytes, std::span<const int> descriptors) {
  if (descriptors.size() > kDescriptorsMax || bytes.size() > kMessageMax) return InvalidArgumentError("a message that is too large");
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptorsMax * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t n;
  do {
    n = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EPIPE || errno == ECONNRESET)) return UnavailableError("the other side takes no message");
  if (n < 0) return Status::FromErrno(errno, "sendmsg");
  return OkStatus();
}

Result<Message> ReceiveMessage(int socket) {
  Message out;
  out.bytes.resize(kMessageMax);
  iovec part{out.bytes.data(), out.bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptorsMax * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n;
  do {
    n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno == EAGAIN) return UnavailableError("no message came");
  if (n < 0) return Status::FromErrno(errno, "recvmsg");
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      out.descriptors.emplace_back(fd);
    }
  }
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) return InvalidArgumentError("a message that is too large");
  out.bytes.resize(static_cast<size_t>(n));
  return out;
}

void SignalEvent(int event) {
  const uint64_t one = 1;
  while (::write(event, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

std::vector<StoredDescriptor> TakeStoredDescriptors() {
  auto take = [](const char* name) {
    const char* value = std::getenv(name);
    std::string out = value == nullptr ? "" : value;
    ::unsetenv(name);
    return out;
  };
  const std::string pid = take("LISTEN_PID"), count = take("LISTEN_FDS"), names = take("LISTEN_FDNAMES");
  std::vector<StoredDescriptor> stored;
  auto number = ParseU64(count);
  if (pid != std::to_string(::getpid()) || !number.ok()) return stored;
  size_t at = 0;
  for (uint64_t i = 0; i < std::min(*number, kStoredMax); ++i) {
    const size_t end = std::min(names.find(':', at), names.size());
    const int fd = kFirstStored + static_cast<int>(i);
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) stored.push_back({names.substr(at, end - at), UniqueFd(fd)});
    at = std::min(end + 1, names.size());
  }
  return stored;
}

Result<UniqueFd> ConnectPacketSocket(const std::string& path, int seconds) {
  HR_ASSIGN_OR_RETURN(sockaddr_un address, AddressOf(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Status::FromErrno(errno, "socket");
  const timeval timeout{seconds, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);  // connect(2) too
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return UnavailableError("nobody listens at " + path + " (" + std::strerror(errno) + ")");
  }
  return fd;
}

Result<UniqueFd> ListenPacketSocket(const std::string& path) {
  HR_ASSIGN_OR_RETURN(sockaddr_un address, AddressOf(path));
  HR_RETURN_IF_ERROR(MakeDirs(path.substr(0, std::max<size_t>(path.rfind('/'), 1)), 0711));
  if (ConnectPacketSocket(path, 1).ok()) return FailedPreconditionError("socket " + path + " is in use by another process");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "unlink " + path);
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Status::FromErrno(errno, "socket");
  // On the socket before bind(2): there is no moment in which others may connect.
  ::fchmod(fd.get(), 0600);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Status::FromErrno(errno, "bind " + path);
  if (::chmod(path.c_str(), 0600) != 0) return Status::FromErrno(errno, "chmod " + path);
  if (::listen(fd.get(), 8) != 0) return Status::FromErrno(errno, "listen at " + path);
  return fd;
}

}  // namespace headrace
