// A Snapshotter on a temporary directory with a fake headrace-fused, and the few steps that most
// tests take.
#ifndef HEADRACE_TEST_SNAPSHOTTER_CORE_FIXTURE_H_
#define HEADRACE_TEST_SNAPSHOTTER_CORE_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "fusefs/base/file.h"
#include "snapshotter/core/snapshotter.h"
#include "test/snapshotter/fake_layer_mounter.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::snapshotter {

class CoreTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(MakeDirs(fs_));
    Reopen();
  }

  void Reopen() {
    core_.reset();
    auto core = Snapshotter::Create(options_, &layers_);
    ASSERT_OK(core);
    core_ = std::move(core).value();
  }

  Result<std::vector<Mount>> Prepare(const std::string& key, const std::string& parent,
                                     const Labels& labels = {}) {
    return core_->Prepare({}, key, parent, labels);
  }
  Result<std::vector<Mount>> View(const std::string& key, const std::string& parent) {
    return core_->View({}, key, parent, {});
  }
  // An ordinary committed snapshot.
  void Commit(const std::string& name, const std::string& parent, const Labels& labels = {}) {
    ASSERT_OK(Prepare(name + "-key", parent));
    ASSERT_OK(core_->Commit(name, name + "-key", labels, ""));
  }
  static Labels LazyLabels(const std::string& ref) {
    return {{"containerd.io/snapshot.ref", ref},
            {"containerd.io/snapshot/headrace.toc", "v1,sha256:0,1,2,3,4"},
            {"containerd.io/snapshot/cri.image-ref", "registry/image:tag"},
            {"containerd.io/snapshot/cri.manifest-digest", "sha256:manifest"},
            {"containerd.io/snapshot/cri.layer-digest", "sha256:blob-" + ref}};
  }
  // What containerd's unpacker does for a layer in our format; the answer is the backend name of
  // the adopted snapshot.
  std::string Lazy(const std::string& ref, const std::string& parent) {
    auto answer = Prepare("ns/1/extract-1 " + ref, parent, LazyLabels(ref));
    EXPECT_CODE(answer, StatusCode::kAlreadyExists);
    auto found = core_->List(
        {"labels.\"containerd.io/snapshot.ref\"==\"" + ref + "\",parent==\"" + parent + "\""});
    EXPECT_OK(found);
    if (!found.ok() || found->size() != 1) {
      ADD_FAILURE() << "no single lazy snapshot for " << ref;
      return "";
    }
    EXPECT_EQ(found->front().kind, Kind::kCommitted);
    return found->front().name;
  }
  std::string Dir(uint64_t id) const { return root_ + "/snapshots/" + std::to_string(id); }
  size_t DirectoryCount() const {
    auto directories = Directories::Open(root_);
    return directories.ok() ? directories->List().value().size() : 0;
  }

  test::TempDir dir_;
  std::string root_ = dir_ / "root";
  std::string fs_ = dir_ / "fs";
  FakeLayerMounter layers_{fs_};
  Snapshotter::Options options_{.root = root_,
                                .mount_deadline = std::chrono::seconds(20),
                                .usage_max_age = std::chrono::milliseconds(0),
                                .usage_wait = std::chrono::seconds(20)};
  std::unique_ptr<Snapshotter> core_;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_TEST_SNAPSHOTTER_CORE_FIXTURE_H_
