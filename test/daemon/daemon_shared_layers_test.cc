// Layers that several images share: reads of every mount go on as long as any of the images' repositories gives the blob, also after a restart; an image that is not mounted
// any more gives nothing.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "test/daemon/daemon_fixture.h"

namespace headrace::test {
namespace {

class DaemonSharedLayersTest : public DaemonFixture {
 protected:
  void SetUp() override {
    options.config.fill_rate = 0;
    options.config.small_file = 0;
    DaemonFixture::SetUp();
    if (IsSkipped()) return;
    options.config.read_deadline = std::chrono::seconds(4);
    options.config.small_file = 0;
    Restart();
    std::mt19937_64 random(TestSeed());
    TreeLayer tree;
    for (const char* name : {"one", "two", "three", "four"}) {
      std::string& bytes = files_[name];
      bytes.resize(200'000);
      for (char& c : bytes) c = static_cast<char>(random());
      tree.push_back(File(name, bytes));
    }
    layer_ = Publish(registry, repository, tree);
    other_.AddBlob("copies/n", layer_.blob);
    ASSERT_OK(Mount("1", "", layer_));
    control::MountRequest second = Request("2", "", layer_);
    second.mutable_layer()->set_image_ref(other_.host() + "/copies/n:latest");
    ASSERT_OK(Mount(second));
  }
  void ExpectFile(const std::string& id, const std::string& name) { EXPECT_TRUE(Slurp(Path(id + "/" + name)) == files_.at(name)) << id << " " << name; }

  FakeRegistry other_;
  std::map<std::string, std::string> files_;
  PublishedLayer layer_;
};

TEST_F(DaemonSharedLayersTest, TheFirstRepositoryIsDeleted) {
  ExpectFile("1", "one");
  EXPECT_EQ(other_.counts().blob_gets, 0u);  // attached once, and read from where it came
  registry.RemoveBlob(repository, layer_.digest);
  ExpectFile("1", "two");
  ExpectFile("2", "three");
  EXPECT_GE(other_.counts().blob_gets, 2u);
  EXPECT_GE(Metric("headrace_place_switches_total"), 1);
  Stop();
  std::filesystem::remove_all(std::filesystem::path(options.config.root) / "cache");
  Start();
  const uint64_t before = other_.counts().blob_gets;
  ExpectFile("1", "one");
  ExpectFile("2", "four");
  EXPECT_GE(other_.counts().blob_gets, before + 2);
}

TEST_F(DaemonSharedLayersTest, TheFirstRepositoryRefusesTheCredentials) {
  registry.RequireBasic("user", "changed");
  ExpectFile("1", "one");
  ExpectFile("2", "two");
  EXPECT_GE(registry.counts().unauthorized, 1u);
}

TEST_F(DaemonSharedLayersTest, TheSecondRepositoryIsDeleted) {
  other_.RemoveBlob("copies/n", layer_.digest);
  ExpectFile("1", "one");
  ExpectFile("2", "two");
}

TEST_F(DaemonSharedLayersTest, ARegistryIsDown) {
  registry.RefuseConnections();
  ExpectFile("1", "one");
  ExpectFile("2", "two");
}

// Goal: what is not mounted is no place, before and after a restart; what is left is enough.
TEST_F(DaemonSharedLayersTest, UnmountedImagesGiveNothing) {
  ASSERT_OK(Unmount("2"));
  registry.RemoveBlob(repository, layer_.digest);
  EXPECT_EQ(Slurp(Path("1/one")).substr(0, 6), "errno ");
  EXPECT_EQ(other_.counts().blob_gets, 0u);
  registry.AddBlob(repository, layer_.blob);
  control::MountRequest again = Request("3", "", layer_);
  again.mutable_layer()->set_image_ref(other_.host() + "/copies/n:latest");
  ASSERT_OK(Mount(again));
  ASSERT_OK(Unmount("1"));  // the image that the layer came with
  registry.RefuseConnections();
  ExpectFile("3", "one");
  Restart();
  ExpectFile("3", "two");
}

}  // namespace
}  // namespace headrace::test
