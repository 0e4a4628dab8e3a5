#include "fusefs/daemon/session_holders.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "fusefs/base/executor.h"
#include "fusefs/base/keeper_protocol.h"
#include "fusefs/base/log.h"
#include "fusefs/base/process.h"

namespace headrace::daemon {
namespace {

constexpr char kDeviceName[] = "headrace-fuse";
constexpr char kTableName[] = "headrace-session";
constexpr int kKeeperSeconds = 1;
constexpr int kTryAgainMs = 200;

Result<Message> Ask(int socket, const std::string& question, std::span<const int> descriptors = {}) {
  HR_RETURN_IF_ERROR(SendMessage(socket, question, descriptors));
  HR_ASSIGN_OR_RETURN(Message answer, ReceiveMessage(socket));
  if (answer.bytes.empty()) return UnavailableError("the snapshotter closed the connection");
  if (answer.bytes.starts_with(keeper::kError)) return InternalError("the snapshotter answered: " + answer.bytes);
  return answer;
}

Result<kernel::Predecessor> AskKeeper(const std::string& socket, const std::string& mountpoint) {
  HR_ASSIGN_OR_RETURN(UniqueFd fd, ConnectPacketSocket(socket, kKeeperSeconds));
  HR_ASSIGN_OR_RETURN(Message answer, Ask(fd.get(), keeper::kGet + mountpoint));
  if (answer.bytes != keeper::kHeld || answer.descriptors.size() != keeper::kSessionDescriptors) return NotFoundError("the snapshotter keeps no session");
  return kernel::Predecessor{std::move(answer.descriptors[0]), std::move(answer.descriptors[1]), "snapshotter"};
}

// True: `stop` was signalled, or `other` (if any) has something to say.
bool WaitFor(int stop, int other, int timeout_ms) {
  pollfd fds[] = {{stop, POLLIN, 0}, {other, POLLIN, 0}};
  int n;
  do {
    n = ::poll(fds, other >= 0 ? 2 : 1, timeout_ms);
  } while (n < 0 && errno == EINTR);
  return n > 0;
}

bool Signalled(int stop) { return WaitFor(stop, -1, 0); }

}  // namespace

std::vector<kernel::Predecessor> SessionHolders::Collect(std::vector<StoredDescriptor> stored, const std::string& keeper_socket,
                                                         const std::string& mountpoint) {
  std::vector<kernel::Predecessor> found;
  kernel::Predecessor from_store;
  from_store.holder = "service manager";
  for (StoredDescriptor& one : stored) {
    if (one.name == kDeviceName) from_store.device = std::move(one.descriptor);
    if (one.name == kTableName) from_store.table = std::move(one.descriptor);
  }
  if (from_store.device.valid() && from_store.table.valid()) found.push_back(std::move(from_store));
  auto kept = AskKeeper(keeper_socket, mountpoint);
  if (kept.ok()) {
    found.push_back(std::move(*kept));
  } else if (kept.status().code() != StatusCode::kNotFound) {
    log::Debug("the snapshotter was not asked for a session error=\"{}\"", kept.status().ToString());
  }
  return found;
}

SessionHolders::SessionHolders(std::string keeper_socket, std::string mountpoint, kernel::SessionDescriptors session, Metrics& metrics)
    : keeper_socket_(std::move(keeper_socket)), mountpoint_(std::move(mountpoint)), session_(session), metrics_(metrics), stop_(::eventfd(0, EFD_CLOEXEC)) {
  HEADRACE_CHECK(stop_.valid());
  GiveToSupervisor();
  thread_ = std::thread([this] { Run(); });
}

SessionHolders::~SessionHolders() {
  SignalEvent(stop_.get());
  thread_.join();
}

void SessionHolders::Held(bool* holder, bool held) {
  MutexLock lock(mu_);
  if (*holder == held) return;
  *holder = held;
  Metrics::Add(metrics_.session_holders, held ? 1 : -1);
}

bool SessionHolders::Any() const {
  MutexLock lock(mu_);
  return supervisor_ || keeper_;
}

// The store refuses what it has already; another session of ours in it is of no use any more.
void SessionHolders::GiveToSupervisor() {
  if (!HasSupervisor()) return;
  auto tell = [](const std::string& state, std::span<const int> descriptors) {
    Status status = NotifySupervisor(state, descriptors);
    if (!status.ok()) log::Warn("the service manager does not keep the session error=\"{}\"", status.ToString());
    return status.ok();
  };
  bool held = true;
  for (const auto& [name, fd] : {std::pair{kDeviceName, session_.device}, std::pair{kTableName, session_.table}}) {
    held = tell(std::string("FDSTOREREMOVE=1\nFDNAME=") + name, {}) && tell(std::string("FDSTORE=1\nFDPOLL=0\nFDNAME=") + name, {&fd, 1}) && held;
  }
  Held(&supervisor_, held);
}

void SessionHolders::Withdraw(const std::string& keeper_socket, const std::string& mountpoint) {
  if (HasSupervisor()) {
    for (const char* name : {kDeviceName, kTableName}) {
      if (Status status = NotifySupervisor(std::string("FDSTOREREMOVE=1\nFDNAME=") + name); !status.ok()) log::Warn("{}", status.ToString());
    }
  }
  if (auto fd = ConnectPacketSocket(keeper_socket, kKeeperSeconds); fd.ok()) {
    if (auto answer = Ask(fd->get(), keeper::kDrop + mountpoint); !answer.ok()) log::Warn("{}", answer.status().ToString());
  }
}

void SessionHolders::Run() {
  SetThreadName("session-holder");
  while (!Signalled(stop_.get())) {
    StayConnected();
    WaitFor(stop_.get(), -1, kTryAgainMs);
  }
}

void SessionHolders::StayConnected() {
  auto fd = ConnectPacketSocket(keeper_socket_, kKeeperSeconds);
  if (!fd.ok()) return;
  const int descriptors[keeper::kSessionDescriptors] = {session_.device, session_.table};
  auto answer = Ask(fd->get(), keeper::kPut + mountpoint_, descriptors);
  if (!answer.ok()) {
    log::Warn("the snapshotter does not keep the session error=\"{}\"", answer.status().ToString());
    return;
  }
  Held(&keeper_, true);
  log::Debug("the snapshotter keeps the session mountpoint={}", mountpoint_);
  WaitFor(stop_.get(), fd->get(), -1);  // it says nothing more: readable means closed
  if (!Signalled(stop_.get())) Held(&keeper_, false);
}

}  // namespace headrace::daemon
