#include "snapshotter/keychain/cri_proxy.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <limits>
#include <thread>

#include "fusefs/base/executor.h"
#include "fusefs/base/file.h"
#include "snapshotter/keychain/proxy_call.h"

namespace headrace::snapshotter {
namespace {

constexpr int kMessageBytesMax = 64 << 20;  // CRI itself allows 16 MiB
constexpr std::chrono::seconds kShutdownGrace{1};
constexpr std::chrono::seconds kDrainMax{30};

class CriProxyImpl : public CriProxy {
 public:
  ~CriProxyImpl() override {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);  // what is left is cancelled
    {
      // A queue must not be shut down under operations that are still to begin.
      MutexLock lock(context_.mu);
      HEADRACE_CHECK(context_.changed.WaitFor(context_.mu, kDrainMax, [this] { return context_.calls.empty(); }));
    }
    context_.queue->Shutdown();
    thread_.join();
  }

  Status Listen(const Options& options, Keeper keeper) {
    context_.keeper = std::move(keeper);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
    arguments.SetMaxSendMessageSize(kMessageBytesMax);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // the caller's business
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
    context_.backend = std::make_unique<grpc::GenericStub>(grpc::CreateCustomChannel(
        "unix:" + options.backend, grpc::InsecureChannelCredentials(), arguments));

    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(kMessageBytesMax);
    builder.SetMaxSendMessageSize(kMessageBytesMax);
    builder.AddListeningPort("unix:" + options.socket, grpc::InsecureServerCredentials());
    builder.RegisterAsyncGenericService(&context_.service);
    context_.queue = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      context_.queue->Shutdown();
      Drain();
      return UnavailableError("keychain.cri_socket: cannot listen on " + options.socket +
                              " (does another process?)");
    }
    // The socket takes pulls and sees secrets: root only (main's umask says so from its first moment).
    const bool closed = ::chmod(options.socket.c_str(), 0600) == 0;
    const int error = errno;
    ProxyCall::AwaitNext(context_);
    thread_ = std::thread([this] {
      SetThreadName("cri-proxy");
      Drain();
    });
    return closed ? OkStatus() : Status::FromErrno(error, "chmod " + options.socket);
  }

 private:
  // Every completion until the queue is shut down and empty.
  void Drain() {
    void* tag = nullptr;
    bool ok = false;
    while (context_.queue->Next(&tag, &ok)) ProxyCall::Complete(tag, ok);
  }

  ProxyContext context_;
  std::unique_ptr<grpc::Server> server_;
  std::thread thread_;
};

Status CheckSocketPath(const std::string& path, const char* key) {
  if (path.empty() || path.front() != '/') {
    return InvalidArgumentError(std::string("keychain.") + key + ": \"" + path + "\" must be an absolute path");
  }
  if (path.size() >= sizeof(sockaddr_un{}.sun_path)) {
    return InvalidArgumentError(std::string("keychain.") + key + " may have 107 bytes at most: " + path);
  }
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<CriProxy>> CriProxy::Start(const Options& options, Keeper keeper) {
  HR_RETURN_IF_ERROR(CheckSocketPath(options.socket, "cri_socket"));
  HR_RETURN_IF_ERROR(CheckSocketPath(options.backend, "cri_backend"));
  if (options.socket == options.backend) {
    return InvalidArgumentError("keychain.cri_socket and keychain.cri_backend are the same: the proxy would forward to itself");
  }
  HR_RETURN_IF_ERROR(MakeDirs(options.socket.substr(0, std::max<size_t>(options.socket.rfind('/'), 1)), 0711));
  if (::unlink(options.socket.c_str()) != 0 && errno != ENOENT) {
    return Status::FromErrno(errno, "unlink " + options.socket);
  }
  auto proxy = std::make_unique<CriProxyImpl>();
  HR_RETURN_IF_ERROR(proxy->Listen(options, std::move(keeper)));
  return std::unique_ptr<CriProxy>(std::move(proxy));
}

}  // namespace headrace::snapshotter
