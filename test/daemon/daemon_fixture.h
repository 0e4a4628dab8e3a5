// The whole headrace-fused in the test's process: a FakeRegistry with layers made by LayerWriter, a Daemon mounted in a mount namespace of
// the test's own, and a client of its control socket. Needs root and /dev/fuse.
#ifndef HEADRACE_TEST_DAEMON_DAEMON_FIXTURE_H_
#define HEADRACE_TEST_DAEMON_DAEMON_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/daemon/daemon.h"
#include "fusefs/format/layer_writer.h"
#include "headrace/control.grpc.pb.h"
#include "test/support/fake_registry.h"
#include "test/support/matchers.h"
#include "test/support/random_tree.h"
#include "test/support/temp_dir.h"

namespace headrace::test {

namespace control = headrace::control::v1;

// A layer as a registry has it.
struct PublishedLayer {
  std::string blob;  // the bytes
  Digest digest;
  std::string toc;   // value of the label
  format::TocLocation location;
};

// Compresses the layer and adds it to the registry.
PublishedLayer Publish(FakeRegistry& registry, const std::string& repository, const TreeLayer& layer,
                       uint64_t chunk_size = 64 << 10);

class DaemonFixture : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  void Start();
  void Stop() { daemon.reset(); }
  void Restart() {
    Stop();
    Start();
  }
  std::unique_ptr<control::Control::Stub> Client() const;
  // OK, or how it failed. `path` gets the answer.
  Status Mount(const std::string& id, const std::string& parent, const PublishedLayer& layer, bool above_foreign = false);
  Status Mount(const control::MountRequest& request);
  control::MountRequest Request(const std::string& id, const std::string& parent, const PublishedLayer& layer,
                                bool above_foreign = false) const;
  Status Unmount(const std::string& id);
  Status Check(const std::string& id);
  control::StatusResponse GetStatus();
  int64_t Metric(const std::string& name) { return GetStatus().metrics().at(name); }
  // Publishes and mounts the layers, bottom to top, as ids first, first + 1, ...; returns the path of the top.
  std::string MountChain(const std::vector<TreeLayer>& layers, int first = 1, bool above_foreign = false);
  std::string Path(const std::string& relative) const { return options.config.mountpoint + "/" + relative; }

  TempDir dir;
  FakeRegistry registry;
  const std::string repository = "models/m";
  daemon::DaemonOptions options;
  std::unique_ptr<daemon::Daemon> daemon;
  std::atomic<int> ended{0};
};

// Whole file, or "errno N".
std::string Slurp(const std::string& path);

}  // namespace headrace::test

#endif  // HEADRACE_TEST_DAEMON_DAEMON_FIXTURE_H_
