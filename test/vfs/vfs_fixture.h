// What the tests of vfs/ share: a Streamer that answers from the layers' own bytes, layers mounted in a row,
// and a walk of the Vfs in the form of a walk of a real directory (test/support/overlay_dirs.h).
#ifndef HEADRACE_TEST_VFS_VFS_FIXTURE_H_
#define HEADRACE_TEST_VFS_VFS_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/vfs/vfs.h"
#include "test/support/matchers.h"
#include "test/support/overlay_dirs.h"
#include "test/support/random_tree.h"

namespace headrace::test {

// Serves the content of layers that were made from TreeLayers; knows them by blob digest. Not for concurrent Opens.
class FakeStreamer : public stream::Streamer {
 public:
  void Know(const Digest& blob, const TreeLayer& layer);
  Result<std::shared_ptr<stream::FileContent>> Open(std::shared_ptr<const stream::LayerSource> layer,
                                                    uint32_t entry_index) override;
  void AddToImage(const std::string&, const std::shared_ptr<const stream::LayerSource>&, bool) override {}
  void RemoveFromImage(const std::string&, const std::shared_ptr<const stream::LayerSource>&) override {}
  uint64_t ResidentBytes(const stream::LayerSource&) override { return 0; }
  std::string last_image_ref;  // of the latest Open

 private:
  std::map<Digest, TreeLayer> layers_;
};

class VfsFixture : public ::testing::Test {
 protected:
  VfsFixture() : vfs(vfs::Vfs::Create(streamer, metrics)) {}

  // A spec for mount `id` of that layer; slots are 2 * number and 2 * number + 1, the blob digest follows from
  // `number`.
  vfs::MountSpec Spec(uint32_t number, const std::string& id, const std::string& parent, const TreeLayer& layer);
  // Mounts the layers as ids first, first + 1, ... each the parent of the next; returns the id of the top.
  std::string MountChain(const std::vector<TreeLayer>& layers, uint32_t first = 1, bool above_foreign = false);
  // Path inside the file system ("7/a/b") by Lookup.
  Result<struct stat> Stat(const std::string& path);
  vfs::NodeId Node(const std::string& path);
  std::vector<std::string> Names(vfs::NodeId node);
  // errno that a failing call stands for (0: it did not fail).
  template <typename T>
  static int Errno(const Result<T>& result) {
    return result.ok() ? 0 : StatusToErrno(result.status());
  }
  TreeDump Dump(const std::string& id);
  NodeDump DumpNode(const struct stat& st);

  Metrics metrics;
  FakeStreamer streamer;
  std::unique_ptr<vfs::Vfs> vfs;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_VFS_VFS_FIXTURE_H_
