// headrace-snapshotter: containerd's proxy snapshotter. Makes the objects, serves until SIGTERM.
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "config/config.h"
#include "fusefs/base/descriptors.h"
#include "fusefs/base/file.h"
#include "fusefs/base/keeper_protocol.h"
#include "fusefs/base/log.h"
#include "fusefs/base/process.h"
#include "snapshotter/core/snapshotter.h"
#include "snapshotter/keeper/session_keeper.h"
#include "snapshotter/keychain/cri_proxy.h"
#include "snapshotter/keychain/secret_keeper.h"
#include "snapshotter/layers/control_client.h"
#include "snapshotter/service/snapshots_service.h"

namespace headrace::snapshotter {
namespace {

// Time that calls under way get to end when the daemon is stopped.
constexpr std::chrono::seconds kShutdownGrace{5};

struct Flags {
  std::string config, root, socket, control_socket, log_level;
};

// The file, then what the command line says.
Result<config::SnapshotterConfig> LoadSettings(const Flags& flags) {
  config::SnapshotterConfig settings;
  if (!flags.config.empty()) {
    HR_ASSIGN_OR_RETURN(config::Config file, config::LoadConfig(flags.config));
    settings = file.snapshotter;
  }
  if (!flags.root.empty()) settings.root = flags.root;
  if (!flags.socket.empty()) settings.socket = flags.socket;
  if (!flags.control_socket.empty()) settings.control_socket = flags.control_socket;
  if (!flags.log_level.empty()) settings.log_level = flags.log_level;
  if (settings.keeper_socket.empty()) settings.keeper_socket = keeper::DefaultSocket(settings.control_socket);
  return settings;
}

// The CRI image-service proxy and what feeds the daemon from it; nothing where it is not configured.
struct Keychain {
  std::unique_ptr<SecretKeeper> keeper;
  std::unique_ptr<CriProxy> proxy;  // destroyed first: it calls the keeper
};

Result<Keychain> StartKeychain(const config::SnapshotterConfig& settings, ControlClient& daemon) {
  Keychain out;
  if (settings.cri_socket.empty()) return out;
  out.keeper = std::make_unique<SecretKeeper>([&daemon](const std::vector<PullSecret>& secrets, std::chrono::milliseconds timeout) {
    std::vector<ImageCredentials> told;
    for (const PullSecret& one : secrets) told.push_back({one.image, one.username, one.password, one.identity_token});
    return daemon.SetCredentials(told, timeout);
  });
  HR_ASSIGN_OR_RETURN(out.proxy, CriProxy::Start({.socket = settings.cri_socket, .backend = settings.cri_backend},
                                                 [keeper = out.keeper.get()](PullSecret secret, std::function<void()> done) {
                                                   keeper->Tell(std::move(secret), std::move(done));
                                                 }));
  log::Info("forwarding CRI image calls socket={} backend={}", settings.cri_socket, settings.cri_backend);
  return out;
}

void Notify(const std::string& state) {
  if (Status status = NotifySupervisor(state); !status.ok()) {
    log::Warn("the supervisor was not told state={} error=\"{}\"", state, status.ToString());
  }
}

// The socket that the service manager listens on for us, if it does (headrace-snapshotter.socket); says so if it is another than the configured one.
UniqueFd HandedSocket(const std::string& configured) {
  UniqueFd found;
  for (StoredDescriptor& one : TakeStoredDescriptors()) {
    sockaddr_un address{};
    socklen_t size = sizeof address;
    if (found.valid() || ::getsockname(one.descriptor.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0 || address.sun_family != AF_UNIX) continue;
    const std::string path(address.sun_path, ::strnlen(address.sun_path, sizeof address.sun_path));
    if (path != configured) log::Warn("the service manager listens at another socket than [snapshotter] socket says socket={} configured={}", path, configured);
    found = std::move(one.descriptor);
  }
  return found;
}

Status Run(const config::SnapshotterConfig& settings) {
  UniqueFd handed = HandedSocket(settings.socket);  // before there are threads
  const bool listens_itself = !handed.valid();
  HR_ASSIGN_OR_RETURN(UniqueFd lock, LockRoot(settings.root, "headrace-snapshotter"));
  size_t slash = settings.socket.rfind('/');
  if (slash != std::string::npos && slash > 0)
    HR_RETURN_IF_ERROR(MakeDirs(settings.socket.substr(0, slash), 0711));

  // Every thread inherits the mask, so that only sigwait below sees these.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);

  // First: the sooner the daemon's session has a second holder, the better.
  HR_ASSIGN_OR_RETURN(std::unique_ptr<SessionKeeper> keeper, SessionKeeper::Start({.socket = settings.keeper_socket}));
  ControlClient layers({.socket = settings.control_socket});
  HR_ASSIGN_OR_RETURN(
      auto core, Snapshotter::Create(
                     {.root = settings.root, .mount_deadline = settings.mount_deadline}, &layers));
  HR_ASSIGN_OR_RETURN(ServedSnapshotter served, Serve(core.get(), settings.socket, std::move(handed)));
  HR_ASSIGN_OR_RETURN(Keychain keychain, StartKeychain(settings, layers));
  log::Info("serving socket={} root={} version={}", settings.socket, settings.root,
            HEADRACE_VERSION);
  Notify("READY=1");

  // containerd need not wait for any of this: calls that need a lazy snapshot see to it themselves.
  std::thread start_up([&core] {
    Status restored = core->RestoreLazy();
    if (!restored.ok())
      log::Warn("not all lazy snapshots are served yet error=\"{}\"", restored.ToString());
    Status cleaned = core->Cleanup();
    if (!cleaned.ok())
      log::Warn("leftovers of an earlier run remain error=\"{}\"", cleaned.ToString());
  });
  int signal = 0;
  ::sigwait(&stop_signals, &signal);
  log::Info("stopping signal={}", signal);
  Notify("STOPPING=1");
  keychain.proxy.reset();
  core->Stop();
  served.accept.reset();
  served.server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  start_up.join();
  served.server.reset();
  if (listens_itself) ::unlink(settings.socket.c_str());
  return {};
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("headrace-snapshotter " HEADRACE_VERSION
               ": containerd snapshotter that serves model images lazily",
               "headrace-snapshotter");
  app.add_option("--config", flags.config, "configuration file (TOML, section [snapshotter])");
  app.add_option("--root", flags.root, "directory of metadata and snapshots");
  app.add_option("--socket", flags.socket, "unix socket for containerd");
  app.add_option("--control-socket", flags.control_socket, "control socket of headrace-fused");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn, error or off");
  app.set_version_flag("--version", HEADRACE_VERSION);
  CLI11_PARSE(app, argc, argv);

  Result<config::SnapshotterConfig> settings = LoadSettings(flags);
  Status status = settings.status();
  if (status.ok()) status = log::Setup("headrace-snapshotter", settings->log_level);
  if (status.ok()) {
    ::umask(0077);  // what needs other modes sets them itself
    ::signal(SIGPIPE, SIG_IGN);
    if (Status raised = RaiseDescriptorLimit(); !raised.ok()) log::Warn("descriptor limit stays error=\"{}\"", raised.ToString());
    status = Run(*settings);
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "headrace-snapshotter: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace headrace::snapshotter

int main(int argc, char** argv) {
  try {
    return headrace::snapshotter::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "headrace-snapshotter: %s\n", error.what());
    return 1;
  }
}
