// FakeLayerMounter: headrace-fused as the snapshotter sees it, in memory. Directories for mounted
// ids are really made below `root`. Thread-safe.
#ifndef HEADRACE_TEST_SNAPSHOTTER_FAKE_LAYER_MOUNTER_H_
#define HEADRACE_TEST_SNAPSHOTTER_FAKE_LAYER_MOUNTER_H_

#include <sys/stat.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "snapshotter/layers/layer_mounter.h"

namespace headrace::snapshotter {

class FakeLayerMounter : public LayerMounter {
 public:
  explicit FakeLayerMounter(std::string root) : root_(std::move(root)) {}

  // Each Mount answers this from now on, unless it is OK.
  void FailMounts(Status status) {
    std::lock_guard lock(mu_);
    mount_error_ = std::move(status);
  }
  // So many answers to Mount say that the layer is still being read.
  void AnswerPending(int times) {
    std::lock_guard lock(mu_);
    pending_answers_ = times;
  }
  // The daemon does not answer.
  void SetDown(bool down) {
    std::lock_guard lock(mu_);
    down_ = down;
  }
  // The daemon lost what it knew.
  void ForgetAll() {
    std::lock_guard lock(mu_);
    mounted_.clear();
  }
  // Called in Mount without a lock held.
  void OnMount(std::function<void()> hook) {
    std::lock_guard lock(mu_);
    on_mount_ = std::move(hook);
  }
  std::vector<MountSpec> calls() const {
    std::lock_guard lock(mu_);
    return calls_;
  }
  std::map<uint64_t, MountSpec> mounted() const {
    std::lock_guard lock(mu_);
    return mounted_;
  }
  std::string PathOf(uint64_t id) const { return root_ + "/" + std::to_string(id); }

  Result<MountAnswer> Mount(const MountSpec& spec,
                            std::chrono::steady_clock::time_point deadline) override {
    std::function<void()> hook;
    {
      std::lock_guard lock(mu_);
      calls_.push_back(spec);
      hook = on_mount_;
    }
    if (hook) hook();
    std::lock_guard lock(mu_);
    if (down_) return UnavailableError("fake: down");
    if (std::chrono::steady_clock::now() > deadline) return DeadlineExceededError("fake: too late");
    if (!mount_error_.ok()) return mount_error_;
    if (spec.parent_id && !mounted_.contains(*spec.parent_id))
      return NotFoundError("fake: parent unknown");
    if (pending_answers_ > 0) {
      --pending_answers_;
      return MountAnswer{"", true, ++done_bytes_, 1000};
    }
    mounted_[spec.id] = spec;
    ::mkdir(PathOf(spec.id).c_str(), 0755);
    return MountAnswer{PathOf(spec.id)};
  }

  Result<std::string> Check(uint64_t id) override {
    std::lock_guard lock(mu_);
    if (down_) return UnavailableError("fake: down");
    if (!mounted_.contains(id)) return NotFoundError("fake: not mounted");
    return PathOf(id);
  }

  Status Unmount(uint64_t id) override {
    std::lock_guard lock(mu_);
    if (down_) return UnavailableError("fake: down");
    for (const auto& [other, spec] : mounted_) {
      if (spec.parent_id == id)
        return FailedPreconditionError("fake: " + std::to_string(other) + " is on top");
    }
    mounted_.erase(id);
    return {};
  }

 private:
  std::string root_;
  mutable std::mutex mu_;
  std::map<uint64_t, MountSpec> mounted_;
  std::vector<MountSpec> calls_;
  Status mount_error_;
  bool down_ = false;
  int pending_answers_ = 0;
  uint64_t done_bytes_ = 0;
  std::function<void()> on_mount_;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_TEST_SNAPSHOTTER_FAKE_LAYER_MOUNTER_H_
