#include "snapshotter/service/accept_loop.h"

#include <fcntl.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/executor.h"
#include "fusefs/base/log.h"

namespace headrace::snapshotter {
namespace {

// After a failure that does not end by itself (no descriptors are left): not at once again.
constexpr int kPauseMs = 200;

int SocketOption(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

}  // namespace

Result<std::unique_ptr<AcceptLoop>> AcceptLoop::Start(UniqueFd listener, grpc::Server* server) {
  const int fd = listener.get();
  if (SocketOption(fd, SO_DOMAIN) != AF_UNIX || SocketOption(fd, SO_TYPE) != SOCK_STREAM || SocketOption(fd, SO_ACCEPTCONN) != 1) {
    return InvalidArgumentError("the descriptor of the service manager is no listening unix stream socket");
  }
  // A connection may be gone between poll and accept; waiting for the next one would make the stop wait, too.
  if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) return Status::FromErrno(errno, "fcntl");
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.valid()) return Status::FromErrno(errno, "eventfd");
  return std::unique_ptr<AcceptLoop>(new AcceptLoop(std::move(listener), std::move(stop), server));
}

AcceptLoop::AcceptLoop(UniqueFd listener, UniqueFd stop, grpc::Server* server)
    : listener_(std::move(listener)), stop_(std::move(stop)), server_(server), thread_([this] { Run(); }) {}

AcceptLoop::~AcceptLoop() {
  SignalEvent(stop_.get());
  thread_.join();
}

void AcceptLoop::Run() {
  SetThreadName("accept");
  pollfd fds[] = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
  for (;;) {
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[0].revents != 0) return;
    const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      grpc::AddInsecureChannelFromFd(server_, fd);  // takes the descriptor
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      log::Error("a connection was not taken error=\"{}\"", Status::FromErrno(errno, "accept").ToString());
      ::poll(fds, 1, kPauseMs);
    }
  }
}

}  // namespace headrace::snapshotter
