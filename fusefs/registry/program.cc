#include "fusefs/registry/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/text.h"

namespace headrace::registry {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
// What credential programs are known to need: where programs, keys, sessions and proxies are.
constexpr const char* kPassedOn[] = {"HOME",           "USER",          "LANG",        "TMPDIR",       "XDG_RUNTIME_DIR",
                                     "XDG_CONFIG_HOME", "DOCKER_CONFIG", "GNUPGHOME",   "GPG_TTY",      "DBUS_SESSION_BUS_ADDRESS",
                                     "SSL_CERT_FILE",  "SSL_CERT_DIR",  "HTTP_PROXY",  "HTTPS_PROXY",  "NO_PROXY",
                                     "http_proxy",     "https_proxy",   "no_proxy",    "PASSWORD_STORE_DIR"};

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// One program under way. Its destructor kills the group and waits for its leader.
class Child {
 public:
  ~Child() {
    if (pid_ > 0) End();
  }
  Status Start(const Program& program);
  // Feeds and reads until the program has ended.
  Status Work(const Program& program, const StopSignal& stop, std::string& output);
  // Kills whatever is left of the group and returns the leader's wait status.
  int End() {
    // The leader is not waited for yet, so that its number cannot belong to somebody else.
    ::kill(-pid_, SIGKILL);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  Status Spawn(const Program& program, int in, int out);
  Status Feed(const Program& program);
  Status Drain(const Program& program, std::string& output);

  pid_t pid_ = -1;
  UniqueFd in_, out_, ended_;
  size_t fed_ = 0;
};

Status Child::Start(const Program& program) {
  std::array<int, 2> in{}, out{};
  // A socket pair and not a pipe: a program that does not read its input must not raise SIGPIPE here.
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in.data()) != 0) return Status::FromErrno(errno, "socketpair");
  in_ = UniqueFd(in[1]);
  UniqueFd in_child(in[0]);
  ::shutdown(in[0], SHUT_WR);
  if (::pipe2(out.data(), O_CLOEXEC) != 0) return Status::FromErrno(errno, "pipe");
  out_ = UniqueFd(out[0]);
  UniqueFd out_child(out[1]);
  for (int fd : {in_.get(), out_.get()}) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  HR_RETURN_IF_ERROR(Spawn(program, in_child.get(), out_child.get()));
  ended_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  return ended_.valid() ? OkStatus() : Status::FromErrno(errno, "pidfd_open");
}

Status Child::Spawn(const Program& program, int in, int out) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addchdir_np(&actions, "/");
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);  // ours blocks what sigwait takes
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<std::string> arguments{program.path};
  arguments.insert(arguments.end(), program.arguments.begin(), program.arguments.end());
  std::vector<std::string> environment = program.environment;
  for (std::string& entry : CleanEnvironment()) {
    const std::string name = entry.substr(0, entry.find('=') + 1);
    const bool set = std::any_of(environment.begin(), environment.end(), [&](const auto& other) { return other.starts_with(name); });
    if (!set) environment.push_back(std::move(entry));
  }
  const int error = ::posix_spawn(&pid_, program.path.c_str(), &actions, &attributes, Pointers(arguments).data(),
                                  Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error == 0) return OkStatus();
  pid_ = -1;
  return Status::FromErrno(error, "cannot run " + program.path);
}

Status Child::Feed(const Program& program) {
  const ssize_t n = ::send(in_.get(), program.input.data() + fed_, program.input.size() - fed_, MSG_NOSIGNAL);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return OkStatus();
  if (n > 0) fed_ += static_cast<size_t>(n);
  // A program may end without having read everything: its answer counts.
  if (n < 0 || fed_ == program.input.size()) in_.Reset();
  return OkStatus();
}

// Takes what is there. At the end of the output out_ is closed.
Status Child::Drain(const Program& program, std::string& output) {
  std::array<char, 16 << 10> buffer{};
  while (out_.valid()) {
    const ssize_t n = ::read(out_.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return OkStatus();
    if (n < 0) return Status::FromErrno(errno, "read");
    if (n == 0) out_.Reset();
    if (output.size() + static_cast<size_t>(n) > program.output_max) {
      return ResourceExhaustedError("it wrote more than " + HumanBytes(program.output_max));
    }
    output.append(buffer.data(), static_cast<size_t>(n));
  }
  return OkStatus();
}

Status Child::Work(const Program& program, const StopSignal& stop, std::string& output) {
  const auto deadline = Clock::now() + program.timeout;
  if (program.input.empty()) in_.Reset();
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return DeadlineExceededError("it did not end within " + std::to_string(program.timeout.count()) + " ms");
    // Closed descriptors are -1, which poll leaves alone.
    std::array<pollfd, 4> fds{{{stop.fd(), POLLIN, 0}, {ended_.get(), POLLIN, 0}, {out_.get(), POLLIN, 0}, {in_.get(), POLLOUT, 0}}};
    const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    if (ready < 0 && errno != EINTR) return Status::FromErrno(errno, "poll");
    if (ready <= 0) continue;
    if (fds[0].revents != 0) return CancelledError("cancelled");
    if (fds[3].revents != 0) HR_RETURN_IF_ERROR(Feed(program));
    if (fds[2].revents != 0) HR_RETURN_IF_ERROR(Drain(program, output));
    // Children that it left behind may hold the pipe for ever: what is in it now is all that counts.
    if (fds[1].revents != 0) return Drain(program, output);
  }
}

}  // namespace

StopSignal::StopSignal() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { HEADRACE_CHECK(fd_.valid()); }

void StopSignal::Stop() {
  SignalEvent(fd_.get());
}

bool StopSignal::stopped() const {
  pollfd fd{fd_.get(), POLLIN, 0};
  return ::poll(&fd, 1, 0) > 0;
}

Result<ProgramResult> RunProgram(const Program& program, const StopSignal& stop) {
  ProgramResult result;
  Child child;
  HR_RETURN_IF_ERROR(child.Start(program));
  HR_RETURN_IF_ERROR(child.Work(program, stop, result.output).Annotate(program.path));
  const int status = child.End();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

std::vector<std::string> CleanEnvironment() {
  const char* path = std::getenv("PATH");
  std::vector<std::string> out{std::string("PATH=") + (path != nullptr ? path : kDefaultPath)};
  for (const char* name : kPassedOn) {
    if (const char* value = std::getenv(name); value != nullptr) out.push_back(std::string(name) + "=" + value);
  }
  return out;
}

Result<std::string> FindProgram(const std::string& name) {
  const char* path = std::getenv("PATH");
  for (std::string_view directory : Split(path != nullptr ? path : kDefaultPath, ':')) {
    if (!directory.starts_with('/')) continue;  // the working directory is no place for programs
    std::string candidate = std::string(directory) + "/" + name;
    struct stat info {};
    if (::stat(candidate.c_str(), &info) == 0 && S_ISREG(info.st_mode) && ::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return NotFoundError("there is no program " + name + " in $PATH");
}

}  // namespace headrace::registry
