#include "snapshotter/cli/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "fusefs/base/executor.h"

namespace headrace::cli {
namespace {

// Another thread may make one more file between the listing and the rmdir, hence the repetition; each round takes what was added.
void RemoveWhileOthersWrite(const std::string& path) {
  Status status = RemoveAll(path);
  for (int tries = 0; !status.ok() && tries < 20; ++tries) status = RemoveAll(path);
  // The process is about to end: a directory that cannot be removed is named, nothing more can be done.
  if (!status.ok()) std::fprintf(stderr, "headrace: %s\n", status.ToString().c_str());
}

}  // namespace

Result<std::unique_ptr<Interrupt>> Interrupt::Create() {
  std::unique_ptr<Interrupt> self(new Interrupt());
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  if (const int err = ::pthread_sigmask(SIG_BLOCK, &set, nullptr)) return Status::FromErrno(err, "pthread_sigmask");
  // A closed pipe (`headrace ... | head`) is a failed write, not a death that leaves temporary files behind.
  if (::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return Status::FromErrno(errno, "signal");
  self->signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
  self->stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!self->signals_.valid() || !self->stop_.valid()) return Status::FromErrno(errno, "signalfd");
  self->thread_ = std::thread([raw = self.get()] { raw->Run(); });
  return self;
}

Interrupt::~Interrupt() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  if (::write(stop_.get(), &one, sizeof one) < 0) std::abort();  // an eventfd at 0 takes a 1
  thread_.join();
}

void Interrupt::Protect(const std::string& path) {
  MutexLock lock(mu_);
  paths_.insert(path);
}

void Interrupt::Release(const std::string& path) {
  MutexLock lock(mu_);
  paths_.erase(path);
}

void Interrupt::Run() {
  SetThreadName("interrupt");
  for (;;) {
    pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (fds[1].revents != 0) return;
    if (fds[0].revents == 0) continue;
    MutexLock lock(mu_);  // never released: nobody enters a path any more
    constexpr std::string_view kMessage = "\nheadrace: interrupted; temporary files removed\n";
    for (const std::string& path : paths_) RemoveWhileOthersWrite(path);
    if (::write(STDERR_FILENO, kMessage.data(), kMessage.size()) < 0) ::_exit(kExitInterrupted);
    ::_exit(kExitInterrupted);
  }
}

}  // namespace headrace::cli
