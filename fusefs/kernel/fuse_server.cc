#include "fusefs/kernel/fuse_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/executor.h"
#include "fusefs/base/log.h"
#include "fusefs/kernel/channel.h"
#include "fusefs/kernel/fuse_lowlevel.h"
#include "fusefs/kernel/inode_modes.h"
#include "fusefs/kernel/operations.h"
#include "fusefs/kernel/pending_reads.h"
#include "fusefs/kernel/session_table.h"

namespace headrace::kernel {
namespace {

// A reply is one writev to /dev/fuse: seconds mean that something is very wrong.
constexpr std::chrono::seconds kReplyTimeout{10};

class DeviceRegistrar : public BackingRegistrar {
 public:
  explicit DeviceRegistrar(int device) : device_(device) {}
  Result<int> Register(int fd) override {
    wire::BackingMap map{fd, 0, 0};
    int id = ::ioctl(device_, wire::kBackingOpen, &map);
    if (id <= 0) return Status::FromErrno(errno, "FUSE_DEV_IOC_BACKING_OPEN");
    return id;
  }
  void Unregister(int backing_id) override {
    uint32_t id = static_cast<uint32_t>(backing_id);
    // ENOTCONN after an unmount: then the kernel dropped the id itself.
    ::ioctl(device_, wire::kBackingClose, &id);
  }

 private:
  int device_;
};

// When a worker began its request, by the steady clock; 0: it has none. Each in a cache line of its own, written twice a request.
struct alignas(64) BusySince {
  std::atomic<int64_t> ns{0};
};

int64_t SteadyNs() { return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct SessionDeleter {
  void operator()(fuse_session* session) const { fuse_session_destroy(session); }
};

class FuseServerImpl : public FuseServer {
 public:
  FuseServerImpl(const FuseServerOptions& options, vfs::Vfs& vfs, Metrics& metrics, Channel channel, SessionTable table, bool took_over,
                 std::function<void()> on_end)
      : options_(options),
        metrics_(metrics),
        channel_(std::move(channel)),
        table_(std::move(table)),
        took_over_(took_over),
        registrar_(channel_.device.get()),
        timer_("fuse-interrupt"),
        modes_(registrar_, table_, options.small_file_bytes, (channel_.flags & wire::kPassthrough) != 0),
        reads_(std::make_shared<PendingReads>(timer_, metrics, options.on_read_failure)),
        context_{vfs, modes_, metrics, reads_},
        operations_(MakeOperations()),
        on_end_(std::move(on_end)) {}

  ~FuseServerImpl() override { Stop(); }

  Status Begin();
  void InvalidateMount(const std::string& id) override;
  void DropPages(vfs::NodeId node) override;
  SessionDescriptors Descriptors() const override { return {channel_.device.get(), table_.memory()}; }
  bool can_be_succeeded() const override { return (channel_.flags & wire::kHasResend) != 0; }
  bool took_over() const override { return took_over_; }
  std::map<vfs::NodeId, int> BackingIds() const override { return modes_.BackingIds(); }
  size_t waiting_reads() const override { return reads_->waiting(); }
  size_t open_inodes() const override { return modes_.open_inodes(); }
  std::chrono::nanoseconds LongestRequest() const override;
  void Stop() override;
  void StopForSuccessor() override;

 private:
  Status MakeSession();
  // Answers, or begins to answer, everything that the predecessor left. On this thread alone, so that afterwards it is known to be all.
  Status AnswerLeftovers();
  // Hands one request to libfuse.
  void Process(char* bytes, size_t size);
  void EndWorkers();
  void Work(unsigned index);
  // False: the connection or this server ended.
  bool WaitForRequest(int epoll);

  const FuseServerOptions options_;
  Metrics& metrics_;
  Channel channel_;
  SessionTable table_;
  const bool took_over_;
  DeviceRegistrar registrar_;
  Timer timer_;
  InodeModes modes_;
  std::shared_ptr<PendingReads> reads_;
  OperationsContext context_;
  std::unique_ptr<fuse_lowlevel_ops> operations_;
  std::function<void()> on_end_;
  UniqueFd stop_event_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> ended_{false};
  bool stopped_ = false;
  std::unique_ptr<fuse_session, SessionDeleter> session_;
  std::vector<BusySince> busy_;  // of each worker
  std::vector<std::thread> workers_;
};

// libfuse is given the INIT that we answered already; its own answer finds no such request in the kernel, which it ignores.
Status FuseServerImpl::MakeSession() {
  std::string name = "headrace-fused";
  char* argv[] = {name.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  operations_->init = [](void*, fuse_conn_info* conn) {
    conn->max_write = kMaxWrite;
    conn->max_background = kMaxBackground;
    conn->congestion_threshold = kCongestionThreshold;
    conn->no_interrupt = 0;
  };
  session_.reset(fuse_session_new(&args, operations_.get(), sizeof *operations_, &context_));
  fuse_opt_free_args(&args);
  if (!session_) return InternalError("libfuse made no session");
  // libfuse closes its descriptor with the session; ours may have to live on.
  int device = ::fcntl(channel_.device.get(), F_DUPFD_CLOEXEC, 3);
  if (device < 0) return Status::FromErrno(errno, "duplicate /dev/fuse");
  std::string path = "/dev/fd/" + std::to_string(device);
  if (fuse_session_mount(session_.get(), path.c_str()) != 0) {
    ::close(device);
    return InternalError("libfuse did not take the descriptor of /dev/fuse");
  }
  fuse_buf init{};
  init.mem = channel_.init_bytes.data();
  init.size = channel_.init_bytes.size();
  fuse_session_process_buf(session_.get(), &init);
  if (fuse_session_exited(session_.get())) return InternalError("libfuse refused the FUSE_INIT of this kernel");
  return OkStatus();
}

wire::InHeader HeaderOf(const char* bytes, size_t size) {
  wire::InHeader header{};
  std::memcpy(&header, bytes, std::min(size, sizeof header));
  return header;
}

void FuseServerImpl::Process(char* bytes, size_t size) {
  const uint64_t unique = HeaderOf(bytes, size).unique;
  const bool resent = (unique & wire::kUniqueResend) != 0;
  if (resent) Metrics::Add(metrics_.requests_resent);
  BeginRequest({unique & ~wire::kUniqueResend, resent});
  fuse_buf request{};
  request.mem = bytes;
  request.size = size;
  fuse_session_process_buf(session_.get(), &request);
}

// The kernel puts the resent requests before all others; only forgets and interrupts, which have queues of their own, may come between.
Status FuseServerImpl::AnswerLeftovers() {
  HR_RETURN_IF_ERROR(AskAgain(channel_.device.get()));
  std::vector<char> buffer(kRequestBytesMax);
  for (;;) {
    const ssize_t size = ::read(channel_.device.get(), buffer.data(), buffer.size());
    if (size < 0 && (errno == EINTR || errno == ENOENT)) continue;
    if (size < 0 && errno == EAGAIN) break;
    if (size < 0) return Status::FromErrno(errno, "read what the predecessor left");
    if (size == 0) return UnavailableError("the FUSE connection has ended");
    const wire::InHeader header = HeaderOf(buffer.data(), static_cast<size_t>(size));
    Process(buffer.data(), static_cast<size_t>(size));
    const bool beside = header.opcode == wire::kOpForget || header.opcode == wire::kOpBatchForget || header.opcode == wire::kOpInterrupt;
    if (!beside && (header.unique & wire::kUniqueResend) == 0) break;
  }
  modes_.SettleUnanswered();
  return OkStatus();
}

Status FuseServerImpl::Begin() {
  HR_RETURN_IF_ERROR(MakeSession());
  metrics_.open_files.store(static_cast<int64_t>(modes_.opens()), std::memory_order_relaxed);
  if (took_over_) HR_RETURN_IF_ERROR(AnswerLeftovers());
  stop_event_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_event_.valid()) return Status::FromErrno(errno, "eventfd");
  busy_ = std::vector<BusySince>(options_.threads);
  for (unsigned i = 0; i < options_.threads; ++i) workers_.emplace_back([this, i] { Work(i); });
  if (Status status = SetReadAhead(options_.mountpoint, options_.read_ahead_bytes >> 10); !status.ok()) {
    log::Warn("read-ahead of the kernel stays at its default, mapped files are read slower error=\"{}\"", status.ToString());
  }
  return OkStatus();
}

bool FuseServerImpl::WaitForRequest(int epoll) {
  epoll_event event;
  int n;
  do {
    n = ::epoll_wait(epoll, &event, 1, -1);
  } while (n < 0 && errno == EINTR);
  return n > 0 && !stopping_.load(std::memory_order_acquire);
}

void FuseServerImpl::Work(unsigned index) {
  SetThreadName("fuse-" + std::to_string(index));
  const int device = channel_.device.get();
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event request{EPOLLIN | EPOLLEXCLUSIVE, {}};
  epoll_event stop{EPOLLIN, {}};
  if (!epoll.valid() || ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, device, &request) != 0 ||
      ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, stop_event_.get(), &stop) != 0) {
    log::Error("a FUSE worker cannot wait for requests error=\"{}\"", Status::FromErrno(errno, "epoll").ToString());
    return;
  }
  std::vector<char> buffer(kRequestBytesMax);
  while (!stopping_.load(std::memory_order_acquire)) {
    ssize_t size = ::read(device, buffer.data(), buffer.size());
    if (size > 0) {
      busy_[index].ns.store(SteadyNs(), std::memory_order_relaxed);
      Process(buffer.data(), static_cast<size_t>(size));
      busy_[index].ns.store(0, std::memory_order_relaxed);
      continue;
    }
    if (size < 0 && errno == EAGAIN) {
      if (!WaitForRequest(epoll.get())) return;
      continue;
    }
    // ENOENT: the request was aborted before we took it.
    if (size < 0 && (errno == EINTR || errno == ENOENT)) continue;
    if (!stopping_.load(std::memory_order_acquire) && !ended_.exchange(true)) {
      log::Info("the FUSE connection ended mountpoint={} reason=\"{}\"", options_.mountpoint,
                size < 0 ? Status::FromErrno(errno, "read").ToString() : "end of file");
      if (on_end_) on_end_();
    }
    return;
  }
}

std::chrono::nanoseconds FuseServerImpl::LongestRequest() const {
  const int64_t now = SteadyNs();
  int64_t longest = 0;
  for (const BusySince& one : busy_) {
    if (const int64_t since = one.ns.load(std::memory_order_relaxed); since != 0) longest = std::max(longest, now - since);
  }
  return std::chrono::nanoseconds(longest);
}

void FuseServerImpl::InvalidateMount(const std::string& id) {
  int result = fuse_lowlevel_notify_inval_entry(session_.get(), vfs::kRootNode, id.c_str(), id.size());
  // ENOENT: the kernel did not know the name.
  if (result != 0 && result != -ENOENT) {
    log::Warn("the kernel did not forget a name id={} error=\"{}\"", id, Status::FromErrno(-result, "notify").ToString());
  }
  fuse_lowlevel_notify_inval_inode(session_.get(), vfs::kRootNode, -1, 0);
}

void FuseServerImpl::DropPages(vfs::NodeId node) {
  int result = fuse_lowlevel_notify_inval_inode(session_.get(), node, 0, 0);
  if (result != 0 && result != -ENOENT) log::Warn("the kernel did not drop pages node={} error=\"{}\"", node, Status::FromErrno(-result, "notify").ToString());
}

void FuseServerImpl::EndWorkers() {
  stopping_.store(true, std::memory_order_release);
  if (stop_event_.valid()) SignalEvent(stop_event_.get());
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
  HEADRACE_CHECK(reads_->Stop(kReplyTimeout));
  session_.reset();
}

void FuseServerImpl::Stop() {
  if (stopped_) return;
  stopped_ = true;
  // The workers still serve while the mount goes; its end is then no news.
  if (!ended_.exchange(true)) {
    if (Status status = DetachMount(options_.mountpoint); !status.ok()) log::Warn("{}", status.ToString());
  }
  EndWorkers();
  modes_.Clear();
  metrics_.open_files.store(0, std::memory_order_relaxed);
}

void FuseServerImpl::StopForSuccessor() {
  if (stopped_) return;
  stopped_ = true;
  ended_.store(true);
  EndWorkers();
  log::Info("the mount stays for a successor mountpoint={} open_files={} open_inodes={}", options_.mountpoint, modes_.opens(), modes_.open_inodes());
  modes_.Leave();
}

// NotFound or Unavailable: there is nothing to go on with. FailedPrecondition: there is, but not for this program.
Result<SessionTable> CheckPredecessor(const FuseServerOptions& options, Predecessor& predecessor) {
  if (!predecessor.device.valid() || !predecessor.table.valid()) return NotFoundError("a descriptor is missing");
  HR_RETURN_IF_ERROR(CheckConnection(predecessor.device.get()));
  HR_ASSIGN_OR_RETURN(SessionTable table, SessionTable::Adopt(std::move(predecessor.table)));
  if (table.identity().mountpoint != options.mountpoint) {
    return NotFoundError("it is of " + table.identity().mountpoint + ", not of " + options.mountpoint);
  }
  HR_ASSIGN_OR_RETURN(uint64_t device, MountedDevice(options.mountpoint));
  if (device != table.identity().device) return NotFoundError("it is not what is mounted at " + options.mountpoint + " now");
  if ((table.identity().flags & wire::kHasResend) == 0) return NotFoundError("this kernel cannot hand requests out again");
  return table;
}

Result<std::unique_ptr<FuseServerImpl>> TakeOver(const FuseServerOptions& options, vfs::Vfs& vfs, Metrics& metrics, const std::function<void()>& on_end,
                                                 Predecessor& predecessor) {
  HR_ASSIGN_OR_RETURN(SessionTable table, CheckPredecessor(options, predecessor));
  Channel channel{std::move(predecessor.device), table.identity().init_bytes, table.identity().flags};
  auto server = std::make_unique<FuseServerImpl>(options, vfs, metrics, std::move(channel), std::move(table), /*took_over=*/true, on_end);
  if (Status status = server->Begin(); !status.ok()) {
    server->StopForSuccessor();  // what cannot be served is not destroyed either
    return status;
  }
  return server;
}

Result<std::unique_ptr<FuseServerImpl>> MountAnew(const FuseServerOptions& options, vfs::Vfs& vfs, Metrics& metrics, std::function<void()> on_end) {
  HR_RETURN_IF_ERROR(CleanStaleMount(options.mountpoint));
  HR_ASSIGN_OR_RETURN(Channel channel, OpenChannel(options.mountpoint));
  auto begin = [&]() -> Result<std::unique_ptr<FuseServerImpl>> {
    HR_ASSIGN_OR_RETURN(uint64_t device, MountedDevice(options.mountpoint));
    HR_ASSIGN_OR_RETURN(SessionTable table, SessionTable::Create({options.mountpoint, channel.init_bytes, channel.flags, device}));
    auto server = std::make_unique<FuseServerImpl>(options, vfs, metrics, std::move(channel), std::move(table), /*took_over=*/false, std::move(on_end));
    HR_RETURN_IF_ERROR(server->Begin());
    return server;
  };
  auto server = begin();
  if (!server.ok()) DetachMount(options.mountpoint).ok();
  return server;
}

}  // namespace

Result<std::unique_ptr<FuseServer>> FuseServer::Start(const FuseServerOptions& options, vfs::Vfs& vfs, Metrics& metrics,
                                                      std::function<void()> on_end, std::vector<Predecessor> predecessors) {
  for (Predecessor& predecessor : predecessors) {
    auto server = TakeOver(options, vfs, metrics, on_end, predecessor);
    if (server.ok()) {
      log::Info("went on with a predecessor's session holder={} open_inodes={} resent_requests={}", predecessor.holder, (*server)->open_inodes(),
                Metrics::Get(metrics.requests_resent));
      return std::unique_ptr<FuseServer>(std::move(*server));
    }
    if (server.status().code() == StatusCode::kFailedPrecondition) {
      return server.status().Annotate("the file system at " + options.mountpoint + " is in use and cannot be taken over");
    }
    log::Info("a session that was kept is of no use holder={} reason=\"{}\"", predecessor.holder, server.status().ToString());
  }
  HR_ASSIGN_OR_RETURN(auto server, MountAnew(options, vfs, metrics, std::move(on_end)));
  return std::unique_ptr<FuseServer>(std::move(server));
}

}  // namespace headrace::kernel
