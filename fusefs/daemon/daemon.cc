#include "fusefs/daemon/daemon.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <utility>

#include "fusefs/base/executor.h"
#include "fusefs/base/file.h"
#include "fusefs/base/keeper_protocol.h"
#include "fusefs/base/log.h"
#include "fusefs/base/process.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/daemon/control_service.h"
#include "fusefs/daemon/layer_manager.h"
#include "fusefs/daemon/metrics_server.h"
#include "fusefs/daemon/session_holders.h"
#include "fusefs/kernel/channel.h"
#include "fusefs/kernel/fuse_server.h"
#include "fusefs/registry/client.h"
#include "fusefs/registry/reference.h"
#include "fusefs/stream/blob_places.h"
#include "fusefs/stream/decoding_source.h"
#include "fusefs/stream/deferred_layer.h"
#include "fusefs/stream/gate.h"
#include "fusefs/stream/streamer.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::daemon {
namespace {

std::chrono::milliseconds Milliseconds(std::chrono::nanoseconds d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d);
}

constexpr uint64_t kInflightShareMin = 256ull << 20;
constexpr uint64_t kInflightShareMax = 1ull << 30;

// A layer that is read whole and does not move is left to containerd, and its thread to others, sooner than a reader gives up.
constexpr std::chrono::milliseconds kWholeStallMax{60'000};

constexpr uint64_t kInflightMin = 32ull << 20;

// What is set, or a share of the memory: enough for a fast wire, little beside what loads the model.
Result<uint64_t> InflightBytes(uint64_t setting) {
  if (setting == 0) return std::clamp(MemoryLimit() / 16, kInflightShareMin, kInflightShareMax);
  if (setting < kInflightMin) return InvalidArgumentError("stream.inflight_max must be 0 or at least 32MiB");
  return setting;
}

Result<bool> LearnLayers(const std::string& setting) {
  if (setting == "stream") return true;
  if (setting == "leave") return false;
  return InvalidArgumentError("layers.without_table must be \"stream\" or \"leave\", not \"" + setting + "\"");
}

Result<kernel::ReadFailure> AfterDeadline(const std::string& setting) {
  if (setting == "eio") return kernel::ReadFailure::kError;
  if (setting == "wait") return kernel::ReadFailure::kWait;
  return InvalidArgumentError("stream.after_deadline must be \"eio\" or \"wait\", not \"" + setting + "\"");
}

std::string KeeperSocket(const config::FusedConfig& config) {
  return config.keeper_socket.empty() ? keeper::DefaultSocket(config.control_socket) : config.keeper_socket;
}

cache::SpaceLimits CacheLimits(const config::FusedConfig& config) {
  return {.budget = config.budget, .low_percent = static_cast<unsigned>(config.low_mark), .free_min = config.free_min};
}

Result<bool> DeferVerification(const std::string& setting) {
  if (setting == "strict") return false;
  if (setting == "deferred") return true;
  return InvalidArgumentError("layers.verify must be \"strict\" or \"deferred\", not \"" + setting + "\"");
}

constexpr unsigned kDeferredAtATime = 3;  // as layers that are read whole before they are shown

class StreamLearner : public LayerLearner {
 public:
  StreamLearner(const stream::DeferredTools& tools, const stream::BlobReaderOptions& reader, std::chrono::milliseconds read_deadline)
      : tools_(tools), reader_(reader), read_deadline_(read_deadline) {}
  ~StreamLearner() override {
    for (const auto& weak : deferred_) {
      if (const auto layer = weak.lock()) layer->Stop();
    }
  }
  Result<LearnedLayer> Learn(const registry::BlobRef& blob, const Digest& diff_id, LearnProgress& progress,
                             const std::function<bool()>& cancelled) override {
    return LearnWhole({blob, diff_id, reader_, cancelled, &progress.done_bytes}, tools_.source, tools_.cache);
  }
  std::shared_ptr<stream::LayerOpener> Defer(const registry::BlobRef& blob, const Digest& diff_id, std::shared_ptr<const format::LayerIndex> walked,
                                             std::function<void(Result<LearnedLayer>)> on_end) override {
    auto layer = stream::DeferredLayer::Create({blob, diff_id, std::move(walked), read_deadline_, reader_}, tools_,
                                               [on_end = std::move(on_end)](Result<stream::LearnedTable> learned) {
                                                 if (!learned.ok()) return on_end(learned.status());
                                                 on_end(LearnedLayer{std::move(learned->table), learned->decoded});
                                               });
    {
      MutexLock lock(mu_);
      std::erase_if(deferred_, [](const auto& weak) { return weak.expired(); });
      deferred_.push_back(layer);
    }
    layer->Start();
    return layer;
  }

 private:
  const stream::DeferredTools tools_;
  const stream::BlobReaderOptions reader_;
  const std::chrono::milliseconds read_deadline_;
  Mutex mu_;
  std::vector<std::weak_ptr<stream::DeferredLayer>> deferred_ HR_GUARDED_BY(mu_);  // to be stopped while all that they use is there
};

class DaemonImpl : public Daemon {
 public:
  explicit DaemonImpl(const DaemonOptions& options)
      : config_(options.config), unmount_on_exit_(options.unmount_on_exit), toc_deadline_(options.toc_deadline), keep_ahead_(options.keep_ahead), stored_(options.stored) {}
  ~DaemonImpl() override {
    metrics_server_.reset();
    control_.reset();  // nobody changes anything any more
    if (cache_) cache_->StopEviction();
    if (fuse_) EndSession();
  }
  const Metrics& metrics() const override { return metrics_; }
  std::chrono::nanoseconds LongestRequest() const override { return fuse_->LongestRequest(); }
  void Reload(const config::FusedConfig& config) override;

  Status BuildDataPath();
  Status Serve(std::function<void()> on_end);

 private:
  Result<registry::KeychainOptions> Keychain();
  // No more requests; open contents are let go. The mount goes too, unless a successor is to have it.
  void EndSession();

  // In the order of construction; destroyed in reverse.
  config::FusedConfig config_;  // changed by Reload only
  const UnmountOnExit unmount_on_exit_;
  const std::chrono::milliseconds toc_deadline_;
  const std::chrono::milliseconds keep_ahead_;
  std::vector<StoredDescriptor>* const stored_;
  Metrics metrics_;
  UniqueFd lock_;
  std::unique_ptr<Timer> timer_;
  std::unique_ptr<ThreadPool> decode_pool_;
  // Shared with the client's chain of sources; the control server feeds it.
  const std::shared_ptr<registry::RememberedCredentials> remembered_ = std::make_shared<registry::RememberedCredentials>();
  std::unique_ptr<registry::Client> client_;
  std::unique_ptr<stream::BlobPlaces> places_;
  std::unique_ptr<stream::DecodingSource> decoding_source_;
  std::unique_ptr<ClientReader> reader_;
  std::unique_ptr<cache::ContentStore> cache_;
  std::unique_ptr<stream::Streamer> streamer_;
  stream::DeferredTurns deferred_turns_{kDeferredAtATime};
  std::unique_ptr<StreamLearner> learner_;
  std::unique_ptr<vfs::Vfs> vfs_;
  std::unique_ptr<kernel::FuseServer> fuse_;
  std::atomic<bool> started_{false};  // fuse_
  stream::Gate serving_;              // for the manager's threads into fuse_
  std::unique_ptr<SessionHolders> holders_;
  std::unique_ptr<LayerManager> manager_;
  std::unique_ptr<ControlServer> control_;
  std::atomic<bool> ended_{false};  // somebody else unmounted the file system
  std::unique_ptr<MetricsServer> metrics_server_;
};

Status DaemonImpl::BuildDataPath() {
  HR_ASSIGN_OR_RETURN(lock_, LockRoot(config_.root, "headrace-fused"));
  timer_ = std::make_unique<Timer>("timer");
  unsigned decoders = config_.decode_threads != 0 ? static_cast<unsigned>(config_.decode_threads) : CoreCount();
  decode_pool_ = std::make_unique<ThreadPool>("decode", decoders);

  registry::ClientOptions client;
  HR_ASSIGN_OR_RETURN(client.keychain, Keychain());
  client.plain_http_hosts = config_.plain_http;
  client.hosts_dir = config_.config_path;
  client.connect_timeout = Milliseconds(config_.connect_timeout);
  client.stall_timeout = Milliseconds(config_.stall_timeout);
  client.request_deadline = toc_deadline_;
  client.max_connections_per_host = static_cast<long>(config_.connections);
  HR_ASSIGN_OR_RETURN(client_, registry::Client::Create(client, metrics_));

  cache::StoreOptions store;
  store.root = config_.root + "/cache";
  store.limits = CacheLimits(config_);
  store.max_age = std::chrono::duration_cast<std::chrono::seconds>(config_.max_age);
  store.await_mounted = true;
  HR_ASSIGN_OR_RETURN(cache_, cache::ContentStore::Create(store, metrics_));

  stream::BlobReaderOptions whole;
  whole.stall_deadline = std::min(Milliseconds(config_.read_deadline), kWholeStallMax);
  reader_ = std::make_unique<ClientReader>(*client_);
  places_ = std::make_unique<stream::BlobPlaces>(*client_, metrics_);
  decoding_source_ = std::make_unique<stream::DecodingSource>(*places_, whole);

  stream::StreamerOptions stream;
  stream.read_deadline = Milliseconds(config_.read_deadline);
  stream.range_bytes_max = config_.range_max;
  HR_ASSIGN_OR_RETURN(stream.inflight_bytes_max, InflightBytes(config_.inflight_max));
  stream.fill_rate = config_.fill_rate;
  stream.small_file_bytes = config_.small_file;
  // An eighth of the connections is left to readers that miss.
  stream.ranges_max = static_cast<unsigned>(std::max<uint64_t>(1, config_.connections - (config_.connections + 7) / 8));
  HR_ASSIGN_OR_RETURN(streamer_, stream::Streamer::Create(stream, *cache_, *decoding_source_, *decode_pool_, *timer_, metrics_));
  learner_ = std::make_unique<StreamLearner>(stream::DeferredTools{*places_, *cache_, *streamer_, *decode_pool_, *timer_, metrics_, deferred_turns_}, whole,
                                             stream.read_deadline);
  vfs_ = vfs::Vfs::Create(*streamer_, metrics_);
  return OkStatus();
}

Result<registry::KeychainOptions> DaemonImpl::Keychain() {
  registry::KeychainOptions keychain;
  keychain.remembered = remembered_;
  keychain.provider_config = config_.credential_provider_config;
  keychain.provider_programs = config_.credential_provider_bin_dir;
  keychain.docker_config = config_.docker_config;
  keychain.credentials_file = config_.credentials_file;
  keychain.program_timeout = Milliseconds(config_.program_timeout);
  std::vector<std::string> warnings;
  HR_RETURN_IF_ERROR(registry::CheckKeychain(keychain, &warnings));
  for (const std::string& warning : warnings) log::Warn("a source of credentials cannot be used now error=\"{}\"", warning);
  return keychain;
}

Status DaemonImpl::Serve(std::function<void()> on_end) {
  LayerManagerOptions manager;
  manager.root = config_.root;
  manager.mountpoint = config_.mountpoint;
  manager.keep_ahead = keep_ahead_;
  manager.warm_connections = std::min(manager.warm_connections, static_cast<unsigned>(config_.connections / 2));
  manager.invalidate = [this](const std::string& id) {
    if (fuse_) fuse_->InvalidateMount(id);
  };
  manager.drop_pages = [this](uint32_t slot, size_t nodes) {
    stream::Gate::Pass pass(serving_);
    if (!pass || !started_.load()) return;
    for (size_t i = 0; i < nodes; ++i) fuse_->DropPages(vfs::MakeNode(slot, static_cast<uint32_t>(i)));
  };
  manager.kept_layers = [this] { return KeptLayers(*cache_); };
  manager.is_pinned = [this](const std::vector<Digest>& contents) {
    return std::all_of(contents.begin(), contents.end(), [this](const Digest& id) { return cache_->IsPinned(id); });
  };
  HR_ASSIGN_OR_RETURN(manager.learn, LearnLayers(config_.without_table));
  HR_ASSIGN_OR_RETURN(manager.defer, DeferVerification(config_.verify));
  manager_ = std::make_unique<LayerManager>(std::move(manager), *reader_, *learner_, *vfs_, *streamer_, *places_, *timer_, metrics_);
  HR_RETURN_IF_ERROR(manager_->Restore());
  cache_->SetMounted([this] { return manager_->MountedContents(); });

  std::vector<StoredDescriptor> stored;
  if (stored_ != nullptr) stored.swap(*stored_);
  std::vector<kernel::Predecessor> predecessors = SessionHolders::Collect(std::move(stored), KeeperSocket(config_), config_.mountpoint);
  kernel::FuseServerOptions fuse;
  fuse.mountpoint = config_.mountpoint;
  fuse.threads = static_cast<unsigned>(config_.fuse_threads);
  fuse.read_ahead_bytes = config_.read_ahead;
  fuse.small_file_bytes = config_.small_file;
  HR_ASSIGN_OR_RETURN(fuse.on_read_failure, AfterDeadline(config_.after_deadline));
  auto ended = [this, tell = std::move(on_end)] {
    ended_.store(true, std::memory_order_release);
    tell();
  };
  HR_ASSIGN_OR_RETURN(fuse_, kernel::FuseServer::Start(fuse, *vfs_, metrics_, std::move(ended), std::move(predecessors)));
  started_.store(true);
  if (fuse_->can_be_succeeded()) holders_ = std::make_unique<SessionHolders>(KeeperSocket(config_), config_.mountpoint, fuse_->Descriptors(), metrics_);
  HR_ASSIGN_OR_RETURN(control_, ControlServer::Start(config_.control_socket, {config_.mountpoint, *manager_, *remembered_, *streamer_, *cache_, metrics_}));
  if (config_.metrics_address.empty()) return OkStatus();
  MetricsPages pages;
  pages.metrics = [this] { return metrics_.ToPrometheus(); };
  pages.health = [this] { return ended_.load(std::memory_order_acquire) ? UnavailableError("the file system was unmounted") : OkStatus(); };
  auto server = MetricsServer::Start(config_.metrics_address, std::move(pages));
  if (!server.ok()) return server.status().Annotate("fused.metrics_address");
  metrics_server_ = std::move(*server);
  return OkStatus();
}

void DaemonImpl::Reload(const config::FusedConfig& config) {
  for (const std::string& setting : config::ChangedSettings(config_, config)) {
    if (config::IsReloadable(setting)) {
      log::Info("reloaded setting={}", setting);
    } else {
      log::Warn("a changed setting needs a restart setting={}", setting);
    }
  }
  if (Status status = log::SetLevel(config.log_level); !status.ok()) log::Warn("log level stays error=\"{}\"", status.ToString());
  cache_->SetLimits(CacheLimits(config), std::chrono::duration_cast<std::chrono::seconds>(config.max_age));
  streamer_->SetFillRate(config.fill_rate);
  config_.log_level = config.log_level;
  config_.fill_rate = config.fill_rate;
  config_.budget = config.budget;
  config_.low_mark = config.low_mark;
  config_.free_min = config.free_min;
  config_.max_age = config.max_age;
}

void DaemonImpl::EndSession() {
  serving_.Close();
  const bool used = Metrics::Get(metrics_.mounts) > 0 || fuse_->open_inodes() > 0;
  const bool kept = holders_ != nullptr && holders_->Any();
  const bool leave = unmount_on_exit_ == UnmountOnExit::kNo || (unmount_on_exit_ == UnmountOnExit::kAuto && used && kept);
  if (leave) {
    fuse_->StopForSuccessor();
  } else {
    fuse_->Stop();
    if (holders_) holders_->Withdraw();
  }
  holders_.reset();
}

}  // namespace

Status TakeDown(const config::FusedConfig& config) {
  HR_ASSIGN_OR_RETURN(UniqueFd lock, LockRoot(config.root, "headrace-fused"));
  HR_RETURN_IF_ERROR(kernel::CleanStaleMount(config.mountpoint));
  SessionHolders::Withdraw(KeeperSocket(config), config.mountpoint);
  log::Info("unmounted mountpoint={}", config.mountpoint);
  return OkStatus();
}

Result<std::unique_ptr<Daemon>> Daemon::Create(const DaemonOptions& options, std::function<void()> on_end) {
  auto daemon = std::make_unique<DaemonImpl>(options);
  HR_RETURN_IF_ERROR(daemon->BuildDataPath());
  HR_RETURN_IF_ERROR(daemon->Serve(std::move(on_end)));
  return std::unique_ptr<Daemon>(std::move(daemon));
}

}  // namespace headrace::daemon
