// containerd's conformance cases that need real mounts, re-expressed: each layer is changed through
// the mount that the snapshotter answers, committed, and its view compared with a plain directory
// to which the same changes were made. Runs in a private mount namespace; needs root and overlayfs.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "test/snapshotter/core_fixture.h"
#include "test/snapshotter/mounted_tree.h"

namespace headrace::snapshotter {
namespace {

namespace fs = std::filesystem;
using Change = std::function<void(const std::string& root)>;

void Write(const std::string& path, const std::string& content, mode_t mode = 0644) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  ASSERT_TRUE(fd.valid()) << path << ": " << ::strerror(errno);
  ASSERT_OK(
      WriteFull(fd.get(), {reinterpret_cast<const uint8_t*>(content.data()), content.size()}));
  ASSERT_EQ(::fchmod(fd.get(), mode), 0);
}

void MakeDir(const std::string& path, mode_t mode = 0755) {
  ASSERT_EQ(::mkdir(path.c_str(), 0700), 0) << path << ": " << ::strerror(errno);
  ASSERT_EQ(::chmod(path.c_str(), mode), 0);
}

void ChangeOwner(const std::string& path, uid_t uid, gid_t gid) {
  ASSERT_EQ(::lchown(path.c_str(), uid, gid), 0) << path;
}
void Rename(const std::string& from, const std::string& to) {
  ASSERT_EQ(::rename(from.c_str(), to.c_str()), 0) << ::strerror(errno);
}

class MountTest : public CoreTest {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      GTEST_SKIP() << "no mount namespace: " << ::strerror(errno);
    }
    // Of its own file system: an upper directory on overlayfs, as containers have for /tmp, is
    // refused by the kernel.
    base_ = dir_ / "base";
    ASSERT_OK(MakeDirs(base_));
    ASSERT_EQ(::mount("tmpfs", base_.c_str(), "tmpfs", 0, "size=64m,mode=755"), 0)
        << ::strerror(errno);
    root_ = base_ + "/root";
    options_.root = root_;
    CoreTest::SetUp();
    MakeDir(base_ + "/flat");
    umask_ = ::umask(0);
  }
  void TearDown() override {
    core_.reset();
    if (base_.empty()) return;
    ::umask(umask_);
    ::umount2(base_.c_str(), MNT_DETACH);
  }

  std::string Target() { return base_ + "/mnt" + std::to_string(++targets_); }

  // One more layer on top of `parent_`, made through its mount and in the flat reference alike.
  void Layer(const Change& change) {
    std::string key = "key" + std::to_string(++layers_made_);
    std::string name = "layer" + std::to_string(layers_made_);
    auto mounts = Prepare(key, parent_);
    ASSERT_OK(mounts);
    {
      Mounted mounted(*mounts, Target());
      ASSERT_OK(mounted.status());
      EXPECT_EQ(ReadTree(mounted.path()), ReadTree(base_ + "/flat"))
          << "before the changes of " << name;
      change(mounted.path());
      change(base_ + "/flat");
      EXPECT_EQ(ReadTree(mounted.path()), ReadTree(base_ + "/flat"))
          << "after the changes of " << name;
    }
    ASSERT_OK(core_->Commit(name, key, {}, ""));
    parent_ = name;
    ExpectView(name);
  }

  void ExpectView(const std::string& name) {
    std::string key = "view" + std::to_string(++targets_);
    auto mounts = View(key, name);
    ASSERT_OK(mounts);
    Mounted mounted(*mounts, Target());
    ASSERT_OK(mounted.status());
    EXPECT_EQ(ReadTree(mounted.path()), ReadTree(base_ + "/flat")) << "view of " << name;
    EXPECT_OK(core_->Remove(key));
  }

  std::string base_;
  std::string parent_;
  int layers_made_ = 0;
  int targets_ = 0;
  mode_t umask_ = 022;
};

// Suite case Basic.
TEST_F(MountTest, Basic) {
  Layer([](const std::string& r) {
    Write(r + "/foo", "foo\n", 0777);
    MakeDir(r + "/a");
    MakeDir(r + "/a/b");
    MakeDir(r + "/a/b/c");
  });
  Layer([](const std::string& r) {
    Write(r + "/bar", "bar\n", 0777);
    Write(r + "/foo", "bar\n", 0777);
    fs::remove_all(r + "/a/b");
  });
}

// Suite case LayerFileupdate: one file overwritten, of the other only the mode changed.
TEST_F(MountTest, LayerFileUpdate) {
  Layer([](const std::string& r) {
    MakeDir(r + "/etc", 0700);
    Write(r + "/etc/hosts", "one\n");
    Write(r + "/etc/profile", "PATH=/bin\n");
  });
  for (int i = 0; i < 5; ++i) {
    Layer([i](const std::string& r) {
      Write(r + "/etc/hosts", "two " + std::to_string(i) + "\n");
      ASSERT_EQ(::chmod((r + "/etc/profile").c_str(), i % 2 == 0 ? 0666 : 0644), 0);
      MakeDir(r + "/root" + std::to_string(i));
      Write(r + "/root" + std::to_string(i) + "/.bashrc", "PATH=/usr/bin\n");
    });
  }
}

// Suite case RemoveDirectoryInLowerLayer.
TEST_F(MountTest, RemoveDirectoryInLowerLayer) {
  Layer([](const std::string& r) {
    MakeDir(r + "/lib");
    Write(r + "/lib/hidden", "hidden\n");
  });
  Layer([](const std::string& r) {
    fs::remove_all(r + "/lib");
    MakeDir(r + "/lib");
    Write(r + "/lib/shown", "shown\n");
  });
  Layer([](const std::string& r) { Write(r + "/lib/added", "added\n"); });
}

// Suite case Chown.
TEST_F(MountTest, Chown) {
  Layer([](const std::string& r) {
    MakeDir(r + "/opt");
    MakeDir(r + "/opt/a");
    MakeDir(r + "/opt/a/b");
    Write(r + "/opt/a/b/file", "hello");
  });
  Layer([](const std::string& r) {
    ChangeOwner(r + "/opt", 1, 1);
    ChangeOwner(r + "/opt/a", 1, 1);
    ChangeOwner(r + "/opt/a/b", 1, 1);
    ChangeOwner(r + "/opt/a/b/file", 1, 1);
  });
}

// Suite case DirectoryPermissionOnCommit.
TEST_F(MountTest, DirectoryPermissionOnCommit) {
  Layer([](const std::string& r) {
    for (int i = 1; i <= 5; ++i) {
      std::string dir = r + "/dir" + std::to_string(i);
      MakeDir(dir, 0700);
      Write(dir + "/f", "x");
      ChangeOwner(dir, static_cast<uid_t>(i), 9);
    }
  });
  Layer([](const std::string& r) {
    ChangeOwner(r + "/dir1", 100, 100);
    fs::remove_all(r + "/dir2");
    MakeDir(r + "/dir2");
    ChangeOwner(r + "/dir2", 200, 200);
    fs::remove_all(r + "/dir3");
    ASSERT_EQ(::chmod((r + "/dir4").c_str(), 0711), 0);
  });
  Layer([](const std::string& r) {
    MakeDir(r + "/dir3", 0750);
    ChangeOwner(r + "/dir3", 300, 300);
    Write(r + "/dir5/g", "y");
  });
}

// Suite case DeletedFilesInChildSnapshot.
TEST_F(MountTest, DeletedFilesStayDeleted) {
  Layer([](const std::string& r) {
    Write(r + "/foo", "foo\n", 0777);
    Write(r + "/foobar", "foobar\n", 0777);
  });
  Layer([](const std::string& r) { fs::remove(r + "/foobar"); });
  Layer([](const std::string&) {});
}

// Suite case MoveFileFromLowerLayer.
TEST_F(MountTest, MoveFileFromLowerLayer) {
  Layer([](const std::string& r) {
    MakeDir(r + "/dir1", 0700);
    Write(r + "/dir1/f1", "hello\n");
    MakeDir(r + "/dir2", 0700);
    Write(r + "/dir2/f2", "..\n");
  });
  Layer([](const std::string& r) {
    MakeDir(r + "/dir3", 0700);
    Write(r + "/dir3/f1", "hello\n");
    fs::remove(r + "/dir1/f1");
    ASSERT_EQ(::link((r + "/dir2/f2").c_str(), (r + "/dir3/f2").c_str()), 0);
    fs::remove(r + "/dir2/f2");
  });
}

// Suite case Rename, files only: renaming lower directories depends on the kernel's redirect_dir,
// as for containerd's overlayfs.
TEST_F(MountTest, Rename) {
  Layer([](const std::string& r) {
    MakeDir(r + "/dir");
    Write(r + "/dir/a", "a");
    Write(r + "/dir/b", "b");
    ASSERT_EQ(::symlink("a", (r + "/dir/link").c_str()), 0);
  });
  Layer([](const std::string& r) {
    Write(r + "/dir/new", "new");
    Rename(r + "/dir/new", r + "/dir/a");
    Rename(r + "/dir/b", r + "/dir/c");
    Rename(r + "/dir/link", r + "/link");
  });
}

// Suite case ViewReadonly, for every sort of view: of nothing, of one layer, of two.
TEST_F(MountTest, ViewsAreReadOnly) {
  auto expect_read_only = [this](const std::string& key, const std::string& parent) {
    auto mounts = View(key, parent);
    ASSERT_OK(mounts);
    Mounted mounted(*mounts, Target());
    ASSERT_OK(mounted.status());
    EXPECT_EQ(::open((mounted.path() + "/new").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644), -1);
    EXPECT_EQ(errno, EROFS);
  };
  expect_read_only("v0", "");
  Layer([](const std::string& r) { Write(r + "/a", "a"); });
  expect_read_only("v1", parent_);
  Layer([](const std::string& r) { Write(r + "/b", "b"); });
  expect_read_only("v2", parent_);
}

// From containerd's list of cases still to be written: a container that holds a file open and a
// directory as its working directory, and a socket, survive the removal and the clean-up of
// everything else.
TEST_F(MountTest, MountInUseSurvivesCleanup) {
  Layer([](const std::string& r) { Write(r + "/a", "a"); });
  auto mounts = Prepare("container", parent_);
  ASSERT_OK(mounts);
  Mounted mounted(*mounts, Target());
  ASSERT_OK(mounted.status());
  UniqueFd open_file(::open((mounted.path() + "/a").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(open_file.valid());
  ASSERT_OK(Prepare("other", parent_));
  ASSERT_OK(core_->Remove("other"));
  ASSERT_OK(core_->Cleanup());
  Reopen();
  EXPECT_EQ(*core_->Mounts("container"), *mounts);
  Write(mounted.path() + "/b", "b");
  EXPECT_EQ(*ReadFile(mounted.path() + "/a", 100), "a");
}

// Suite case 128LayersMount.
TEST_F(MountTest, Layers128) {
  for (int i = 0; i < 128; ++i) {
    Layer([i](const std::string& r) {
      std::string dir = r + "/dir" + std::to_string(i % 8);
      if (!fs::exists(dir)) MakeDir(dir);
      Write(dir + "/file" + std::to_string(i % 16), "layer " + std::to_string(i));
      if (i % 5 == 4) fs::remove_all(r + "/dir" + std::to_string((i + 3) % 8));
    });
    if (HasFatalFailure()) return;
  }
  ExpectView(parent_);
}

}  // namespace
}  // namespace headrace::snapshotter
