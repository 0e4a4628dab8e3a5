#include "snapshotter/keeper/session_keeper.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <list>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/executor.h"
#include "fusefs/base/file.h"
#include "fusefs/base/keeper_protocol.h"
#include "fusefs/base/log.h"

namespace headrace::snapshotter {
namespace {

using Clock = std::chrono::steady_clock;

struct Session {
  std::vector<UniqueFd> descriptors;
  int provider = -1;          // the connection that gave it; -1: that is gone
  Clock::time_point orphan_at;  // without a provider: when it is let go
};

class SessionKeeperImpl : public SessionKeeper {
 public:
  SessionKeeperImpl(SessionKeeperOptions options, UniqueFd listener) : options_(std::move(options)), listener_(std::move(listener)) {}
  ~SessionKeeperImpl() override {
    SignalEvent(stop_.get());
    if (thread_.joinable()) thread_.join();
    ::unlink(options_.socket.c_str());
  }
  size_t sessions() const override { return count_; }

  Status Begin() {
    stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    if (!stop_.valid()) return Status::FromErrno(errno, "eventfd");
    thread_ = std::thread([this] { Run(); });
    return OkStatus();
  }

 private:
  void Run();
  void Accept();
  // False: the connection ended.
  bool Serve(int client);
  std::pair<std::string, std::vector<int>> Answer(int client, Message& question);
  void Put(int client, const std::string& mountpoint, std::vector<UniqueFd> descriptors);
  void ClientGone(int client);
  int MillisecondsToOrphan() const;
  void DropOrphans();

  const SessionKeeperOptions options_;
  UniqueFd listener_;
  UniqueFd stop_;
  std::atomic<size_t> count_{0};
  std::thread thread_;
  // The thread's own.
  std::list<UniqueFd> clients_;
  std::map<std::string, Session> sessions_;
};

void SessionKeeperImpl::Run() {
  SetThreadName("session-keeper");
  for (;;) {
    std::vector<pollfd> fds{{stop_.get(), POLLIN, 0}, {listener_.get(), static_cast<short>(clients_.size() < kClientsMax ? POLLIN : 0), 0}};
    for (const UniqueFd& client : clients_) fds.push_back({client.get(), POLLIN, 0});
    if (::poll(fds.data(), fds.size(), MillisecondsToOrphan()) < 0 && errno != EINTR) {
      log::Error("the session keeper cannot wait error=\"{}\"", Status::FromErrno(errno, "poll").ToString());
      return;
    }
    if (fds[0].revents != 0) return;
    for (size_t i = 2; i < fds.size(); ++i) {
      if (fds[i].revents == 0 || Serve(fds[i].fd)) continue;
      ClientGone(fds[i].fd);
      std::erase_if(clients_, [&](const UniqueFd& client) { return client.get() == fds[i].fd; });
    }
    if (fds[1].revents != 0) Accept();
    DropOrphans();
    count_ = sessions_.size();
  }
}

void SessionKeeperImpl::Accept() {
  UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!client.valid()) return;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || (peer.uid != 0 && peer.uid != ::geteuid())) {
    log::Warn("a process that is not root's was refused pid={} uid={}", peer.pid, peer.uid);
    return;
  }
  clients_.push_back(std::move(client));
}

bool SessionKeeperImpl::Serve(int client) {
  auto question = ReceiveMessage(client);
  if (!question.ok()) return question.status().code() == StatusCode::kUnavailable;
  if (question->bytes.empty()) return false;
  auto [answer, descriptors] = Answer(client, *question);
  return SendMessage(client, answer, descriptors).ok();
}

std::pair<std::string, std::vector<int>> SessionKeeperImpl::Answer(int client, Message& question) {
  const std::string& bytes = question.bytes;
  auto name = [&](std::string_view verb) { return bytes.substr(verb.size()); };
  if (bytes.starts_with(keeper::kPut)) {
    if (question.descriptors.size() != keeper::kSessionDescriptors) return {std::string(keeper::kError) + "a session has two descriptors", {}};
    if (sessions_.size() >= kSessionsMax && !sessions_.contains(name(keeper::kPut))) return {std::string(keeper::kError) + "too many sessions", {}};
    Put(client, name(keeper::kPut), std::move(question.descriptors));
    return {keeper::kOk, {}};
  }
  if (bytes.starts_with(keeper::kGet)) {
    auto it = sessions_.find(name(keeper::kGet));
    if (it == sessions_.end()) return {keeper::kNone, {}};
    std::vector<int> descriptors;
    for (const UniqueFd& one : it->second.descriptors) descriptors.push_back(one.get());
    return {keeper::kHeld, std::move(descriptors)};
  }
  if (bytes.starts_with(keeper::kDrop)) {
    if (sessions_.erase(name(keeper::kDrop)) > 0) log::Info("headrace-fused ended its session mountpoint={}", name(keeper::kDrop));
    return {keeper::kOk, {}};
  }
  return {std::string(keeper::kError) + "this snapshotter does not know the request", {}};
}

void SessionKeeperImpl::Put(int client, const std::string& mountpoint, std::vector<UniqueFd> descriptors) {
  sessions_[mountpoint] = Session{std::move(descriptors), client, {}};
  log::Info("keeping the session of headrace-fused mountpoint={}", mountpoint);
}

void SessionKeeperImpl::ClientGone(int client) {
  for (auto& [mountpoint, session] : sessions_) {
    if (session.provider != client) continue;
    session.provider = -1;
    session.orphan_at = Clock::now() + options_.orphan_time;
    log::Info("headrace-fused is gone, its session waits for a successor mountpoint={}", mountpoint);
  }
}

int SessionKeeperImpl::MillisecondsToOrphan() const {
  auto first = Clock::time_point::max();
  for (const auto& [mountpoint, session] : sessions_) {
    if (session.provider < 0) first = std::min(first, session.orphan_at);
  }
  if (first == Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(first - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
}

void SessionKeeperImpl::DropOrphans() {
  const auto now = Clock::now();
  std::erase_if(sessions_, [&](const auto& one) {
    const auto& [mountpoint, session] = one;
    if (session.provider >= 0 || now < session.orphan_at) return false;
    log::Error("no headrace-fused came for its session: whoever reads from it gets an error now mountpoint={}", mountpoint);
    return true;
  });
}

}  // namespace

Result<std::unique_ptr<SessionKeeper>> SessionKeeper::Start(SessionKeeperOptions options) {
  HR_ASSIGN_OR_RETURN(UniqueFd listener, ListenPacketSocket(options.socket));
  auto keeper = std::make_unique<SessionKeeperImpl>(std::move(options), std::move(listener));
  HR_RETURN_IF_ERROR(keeper->Begin());
  return std::unique_ptr<SessionKeeper>(std::move(keeper));
}

}  // namespace headrace::snapshotter
