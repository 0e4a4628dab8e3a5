#include "snapshotter/core/snapshotter.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"
#include "snapshotter/core/labels.h"
#include "snapshotter/filter/filter.h"

namespace headrace::snapshotter {
namespace {

std::optional<std::string> FieldOf(const Info& info, const std::vector<std::string>& path) {
  const std::string& first = path.front();
  if (first == "name") return info.name;
  if (first == "parent") return info.parent;
  if (first == "kind") {
    switch (info.kind) {
      case Kind::kView:
        return "view";
      case Kind::kActive:
        return "active";
      case Kind::kCommitted:
        return "committed";
    }
  }
  if (first != "labels") return std::nullopt;
  std::string key;
  for (size_t i = 1; i < path.size(); ++i) {
    if (i > 1) key += '.';
    key += path[i];
  }
  auto found = info.labels.find(key);
  if (found == info.labels.end()) return std::nullopt;
  return found->second;
}

bool IsImageVolume(const std::string& key) {
  return key.find(kImageVolumeKeyPart) != std::string::npos;
}

}  // namespace

Snapshotter::Snapshotter(Options options, LayerMounter* layers, Directories directories,
                         std::unique_ptr<MetaStore> store)
    : options_(std::move(options)),
      layers_(layers),
      directories_(std::move(directories)),
      store_(std::move(store)),
      overlay_has_index_(::access("/sys/module/overlay/parameters/index", F_OK) == 0),
      meter_({.max_age = options_.usage_max_age,
              .wait = options_.usage_wait,
              .on_final = [this](uint64_t id, Usage usage) {
                Status status = store_->SetUsage(id, usage);
                if (!status.ok())
                  log::Warn("usage not stored snapshot={} error=\"{}\"", id, status.ToString());
              }}) {}

Snapshotter::~Snapshotter() = default;

Result<std::unique_ptr<Snapshotter>> Snapshotter::Create(Options options, LayerMounter* layers) {
  HR_ASSIGN_OR_RETURN(Directories directories, Directories::Open(options.root));
  HR_ASSIGN_OR_RETURN(auto store, MetaStore::Open({.path = options.root + "/metadata.db",
                                                   .now_ns = options.now_ns}));
  std::unique_ptr<Snapshotter> snapshotter(
      new Snapshotter(std::move(options), layers, std::move(directories), std::move(store)));
  HR_ASSIGN_OR_RETURN(std::vector<Record> unmeasured, snapshotter->store_->Unmeasured());
  for (const Record& record : unmeasured) {
    snapshotter->meter_.MeasureForGood(record.id, snapshotter->directories_.Fs(record.id));
  }
  return snapshotter;
}

// The committed parent and its ancestors, nearest first; empty without a parent. Also refuses a key
// that is used already: the store would refuse it later, but first directories and mounts would be
// made for nothing.
Result<std::vector<Record>> Snapshotter::ParentChain(const std::string& key,
                                                     const std::string& parent) {
  HR_RETURN_IF_ERROR(ValidateName("snapshot key", key));
  std::vector<Record> chain;
  if (!parent.empty()) {
    Result<std::vector<Record>> found = store_->Chain(parent);
    if (!found.ok()) return found.status().Annotate("parent of " + key);
    chain = std::move(found).value();
    if (chain.front().info.kind != Kind::kCommitted) {
      return InvalidArgumentError("parent " + parent + " of " + key +
                                  " is not a committed snapshot");
    }
  }
  Result<Record> used = store_->Get(key);
  if (used.ok()) return AlreadyExistsError("snapshot " + key + " exists");
  if (used.status().code() != StatusCode::kNotFound) return used.status();
  return chain;
}

Result<std::vector<Mount>> Snapshotter::Prepare(const CallContext& call, const std::string& key,
                                                const std::string& parent, const Labels& labels) {
  HR_RETURN_IF_ERROR(ValidateLabels(labels));
  auto ref = labels.find(kLabelRef);
  if (ref != labels.end() && !ref->second.empty() &&
      (labels.contains(kLabelToc) || labels.contains(kLabelManifestDigest))) {
    HR_ASSIGN_OR_RETURN(std::vector<Record> chain, ParentChain(key, parent));
    HR_ASSIGN_OR_RETURN(LazyOutcome outcome, PrepareLazy(call, parent, chain, labels));
    if (outcome == LazyOutcome::kServed) {
      return AlreadyExistsError("target snapshot " + ref->second +
                                " is served lazily, nothing is to be unpacked");
    }
  }
  return CreateOrdinary(Kind::kActive, key, parent, labels);
}

Result<std::vector<Mount>> Snapshotter::View(const CallContext&, const std::string& key,
                                             const std::string& parent, const Labels& labels) {
  HR_RETURN_IF_ERROR(ValidateLabels(labels));
  return CreateOrdinary(Kind::kView, key, parent, labels);
}

Result<std::vector<Mount>> Snapshotter::CreateOrdinary(Kind kind, const std::string& key,
                                                       const std::string& parent,
                                                       const Labels& labels) {
  HR_ASSIGN_OR_RETURN(std::vector<Record> chain, ParentChain(key, parent));
  HR_ASSIGN_OR_RETURN(std::vector<std::string> lowers, Lowers(chain));
  // Like containerd's overlayfs snapshotter: the root of the new layer belongs to whom the root
  // below belongs.
  Owner owner;
  if (!lowers.empty()) {
    HR_ASSIGN_OR_RETURN(owner, OwnerOf(lowers.front()));
  }
  HR_ASSIGN_OR_RETURN(uint64_t id, store_->AllotId());
  auto wanted = ids_in_flight_.TakeTurn(id, std::chrono::steady_clock::now());
  SyncPoint("create:allotted");
  Status made = directories_.Make(id, kind, owner);
  SyncPoint("create:directories");
  Result<Record> record = made.ok() ? store_->Create({id, kind, key, parent, labels, std::nullopt})
                                    : Result<Record>(made);
  if (!record.ok()) {
    Status removed = directories_.Remove(id);
    if (!removed.ok())
      log::Warn("leftover for Cleanup snapshot={} error=\"{}\"", id, removed.ToString());
    return record.status();
  }
  SyncPoint("create:row");
  return MountsOf(*record, chain, std::move(lowers));
}

// One directory for each ordinary ancestor and one for each run of lazy ones, top first.
Result<std::vector<std::string>> Snapshotter::Lowers(std::span<const Record> chain) {
  std::vector<std::string> lowers;
  for (size_t i = 0; i < chain.size();) {
    if (!chain[i].lazy) {
      lowers.push_back(directories_.Fs(chain[i].id));
      ++i;
      continue;
    }
    HR_ASSIGN_OR_RETURN(std::string path, ServedPath(chain.subspan(i)));
    lowers.push_back(std::move(path));
    while (i < chain.size() && chain[i].lazy) ++i;
  }
  return lowers;
}

Result<std::vector<Mount>> Snapshotter::MountsOf(const Record& self,
                                                 std::span<const Record> ancestors,
                                                 std::vector<std::string> lowers) const {
  bool all_lazy =
      !ancestors.empty() && std::all_of(ancestors.begin(), ancestors.end(),
                                        [](const Record& r) { return r.lazy.has_value(); });
  MountPlan plan;
  plan.kind = self.info.kind;
  plan.directory = directories_.Of(self.id);
  plan.lowers = std::move(lowers);
  // Nobody writes to an image volume (kubelet insists on read-only): without overlayfs between,
  // readers map the model's files directly.
  plan.image_volume_view = all_lazy && IsImageVolume(self.info.name);
  plan.index_off = overlay_has_index_;
  return ComposeMounts(plan);
}

Result<std::vector<Mount>> Snapshotter::Mounts(const std::string& key) {
  HR_ASSIGN_OR_RETURN(std::vector<Record> chain, store_->Chain(key));
  if (chain.front().info.kind == Kind::kCommitted) {
    return FailedPreconditionError("snapshot " + key +
                                   " is committed and has no mounts; prepare or view it");
  }
  std::span<const Record> ancestors = std::span<const Record>(chain).subspan(1);
  HR_ASSIGN_OR_RETURN(std::vector<std::string> lowers, Lowers(ancestors));
  return MountsOf(chain.front(), ancestors, std::move(lowers));
}

Status Snapshotter::Commit(const std::string& name, const std::string& key, const Labels& labels,
                           const std::string& parent) {
  HR_ASSIGN_OR_RETURN(Record record, store_->Commit(name, key, labels, parent));
  SyncPoint("commit:row");
  meter_.MeasureForGood(record.id, directories_.Fs(record.id));
  return {};
}

Status Snapshotter::Remove(const std::string& name) {
  Result<Record> record = store_->Get(name);
  HR_RETURN_IF_ERROR(store_->Remove(name));
  if (record.ok()) meter_.Forget(record->id);
  return {};
}

Result<Info> Snapshotter::Stat(const std::string& name) {
  HR_ASSIGN_OR_RETURN(Record record, store_->Get(name));
  return record.info;
}

Result<Info> Snapshotter::Update(const std::string& name, const Labels& labels,
                                 const std::vector<std::string>& mask) {
  return store_->Update(name, labels, mask);
}

Result<std::vector<Info>> Snapshotter::List(const std::vector<std::string>& filters) {
  HR_ASSIGN_OR_RETURN(Filter filter, Filter::Parse(filters));
  HR_ASSIGN_OR_RETURN(std::vector<Info> infos, store_->List());
  std::erase_if(infos, [&filter](const Info& info) {
    return !filter.Match(
        [&info](const std::vector<std::string>& path) { return FieldOf(info, path); });
  });
  return infos;
}

Result<Usage> Snapshotter::GetUsage(const std::string& name) {
  HR_ASSIGN_OR_RETURN(Record record, store_->Get(name));
  if (record.lazy || record.info.kind == Kind::kView) return Usage{};
  if (record.usage) return *record.usage;
  return meter_.Get(record.id, directories_.Fs(record.id));
}

Status Snapshotter::Cleanup() {
  Status first_failure;
  auto note = [&first_failure](uint64_t id, const Status& status) {
    if (status.ok()) return;
    log::Warn("cleanup failed and will be tried again snapshot={} error=\"{}\"", id,
              status.ToString());
    if (first_failure.ok())
      first_failure = status.Annotate("cleanup of snapshot " + std::to_string(id));
  };
  // The order of the questions matters: an id that is in flight gets its row before it leaves that
  // set.
  auto wanted = [this](uint64_t id) -> Result<bool> {
    if (ids_in_flight_.Contains(id)) return true;
    return store_->HasId(id);
  };
  HR_ASSIGN_OR_RETURN(std::vector<MetaStore::Leftover> leftovers, store_->Leftovers());
  for (const MetaStore::Leftover& leftover : leftovers) {
    if (stopping_.load()) return CancelledError("the snapshotter stops");
    HR_ASSIGN_OR_RETURN(bool keep, wanted(leftover.id));
    if (keep) continue;
    Status gone = leftover.lazy ? layers_->Unmount(leftover.id) : directories_.Remove(leftover.id);
    SyncPoint("cleanup:gone");
    if (gone.ok()) gone = store_->DropLeftover(leftover.id);
    note(leftover.id, gone);
  }
  HR_ASSIGN_OR_RETURN(std::vector<uint64_t> directories, directories_.List());
  for (uint64_t id : directories) {
    if (stopping_.load()) return CancelledError("the snapshotter stops");
    HR_ASSIGN_OR_RETURN(bool keep, wanted(id));
    if (!keep) note(id, directories_.Remove(id));
  }
  return first_failure;
}

}  // namespace headrace::snapshotter
