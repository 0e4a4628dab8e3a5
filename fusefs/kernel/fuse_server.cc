#include "fusefs/kernel/fuse_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/log.h"
#include "fusefs/kernel/channel.h"
#include "fusefs/kernel/fuse_lowlevel.h"
#include "fusefs/kernel/inode_modes.h"
#include "fusefs/kernel/operations.h"
#include "fusefs/kernel/pending_reads.h"

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

struct SessionDeleter {
  void operator()(fuse_session* session) const { fuse_session_destroy(session); }
};

class FuseServerImpl : public FuseServer {
 public:
  FuseServerImpl(const FuseServerOptions& options, vfs::Vfs& vfs, Metrics& metrics, Channel channel,
                 std::function<void()> on_end)
      : options_(options),
        channel_(std::move(channel)),
        registrar_(channel_.device.get()),
        timer_("fuse-interrupt"),
        modes_(registrar_, options.small_file_bytes, (channel_.flags & wire::kPassthrough) != 0),
        reads_(std::make_shared<PendingReads>(timer_, metrics, options.on_read_failure)),
        context_{vfs, modes_, metrics, reads_},
        operations_(MakeOperations()),
        on_end_(std::move(on_end)) {}

  ~FuseServerImpl() override { Stop(); }

  Status Begin();
  void InvalidateMount(const std::string& id) override;
  SessionState State() const override {
    return SessionState{channel_.device.get(), channel_.init_bytes, modes_.BackingIds()};
  }
  size_t waiting_reads() const override { return reads_->waiting(); }
  size_t open_inodes() const override { return modes_.open_inodes(); }
  void Stop() override;

 private:
  Status MakeSession();
  void Work(unsigned index);
  // False: the connection or this server ended.
  bool WaitForRequest(int epoll);

  const FuseServerOptions options_;
  Channel channel_;
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

Status FuseServerImpl::Begin() {
  HR_RETURN_IF_ERROR(MakeSession());
  stop_event_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_event_.valid()) return Status::FromErrno(errno, "eventfd");
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
      fuse_buf request_bytes{};
      request_bytes.mem = buffer.data();
      request_bytes.size = static_cast<size_t>(size);
      fuse_session_process_buf(session_.get(), &request_bytes);
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

void FuseServerImpl::InvalidateMount(const std::string& id) {
  int result = fuse_lowlevel_notify_inval_entry(session_.get(), vfs::kRootNode, id.c_str(), id.size());
  // ENOENT: the kernel did not know the name.
  if (result != 0 && result != -ENOENT) {
    log::Warn("the kernel did not forget a name id={} error=\"{}\"", id, Status::FromErrno(-result, "notify").ToString());
  }
  fuse_lowlevel_notify_inval_inode(session_.get(), vfs::kRootNode, -1, 0);
}

void FuseServerImpl::Stop() {
  if (stopped_) return;
  stopped_ = true;
  // The workers still serve while the mount goes; its end is then no news.
  if (!ended_.exchange(true) && options_.unmount_on_stop) {
    if (Status status = DetachMount(options_.mountpoint); !status.ok()) log::Warn("{}", status.ToString());
  }
  stopping_.store(true, std::memory_order_release);
  if (stop_event_.valid()) {
    uint64_t one = 1;
    while (::write(stop_event_.get(), &one, sizeof one) < 0 && errno == EINTR) {
    }
  }
  for (std::thread& worker : workers_) worker.join();
  HEADRACE_CHECK(reads_->Stop(kReplyTimeout));
  session_.reset();
  modes_.Clear();
}

}  // namespace

Result<std::unique_ptr<FuseServer>> FuseServer::Start(const FuseServerOptions& options, vfs::Vfs& vfs, Metrics& metrics,
                                                      std::function<void()> on_end) {
  HR_RETURN_IF_ERROR(CleanStaleMount(options.mountpoint));
  HR_ASSIGN_OR_RETURN(Channel channel, OpenChannel(options.mountpoint));
  auto server = std::make_unique<FuseServerImpl>(options, vfs, metrics, std::move(channel), std::move(on_end));
  if (Status status = server->Begin(); !status.ok()) {
    DetachMount(options.mountpoint).ok();
    return status;
  }
  return std::unique_ptr<FuseServer>(std::move(server));
}

}  // namespace headrace::kernel
