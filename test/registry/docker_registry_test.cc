// The client against the real registry of the distribution project. Its binary is named by HEADRACE_DOCKER_REGISTRY; without it the
// tests are skipped.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>


#include "fusefs/base/file.h"
#include "fusefs/registry/client.h"
#include "test/registry/client_test_util.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::registry {
namespace {

int FreePort() {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  HEADRACE_CHECK(::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  HEADRACE_CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

class DockerRegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* binary = std::getenv("HEADRACE_DOCKER_REGISTRY");
    if (binary == nullptr) GTEST_SKIP() << "SKIPPED: HEADRACE_DOCKER_REGISTRY does not name a docker-registry binary";
    host_ = "127.0.0.1:" + std::to_string(FreePort());
    std::string config = "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: " +
                         (dir_ / "data") + "}\n  delete: {enabled: true}\nhttp: {addr: '" + host_ + "'}\n";
    ASSERT_OK(WriteFileAtomic(dir_ / "config.yml", config));
    std::string path = dir_ / "config.yml";
    pid_ = ::fork();
    if (pid_ == 0) {
      int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, 1);
      ::dup2(null, 2);
      ::execl(binary, binary, "serve", path.c_str(), nullptr);
      ::_exit(127);
    }
    ClientOptions options;
    options.request_deadline = std::chrono::seconds(20);  // the first calls wait for the registry to come up
    client_ = *Client::Create(options, metrics_);
  }
  void TearDown() override {
    client_.reset();
    if (pid_ <= 0) return;
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }

  test::TempDir dir_;
  std::string host_;
  pid_t pid_ = -1;
  Metrics metrics_;
  std::unique_ptr<Client> client_;
};

// Goal: what is pushed comes back, whole and by ranges, and existing content is not sent again.
TEST_F(DockerRegistryTest, PushAndPull) {
  const Reference ref = *Reference::Parse(host_ + "/team/model:v1");
  const std::string content = test::RandomBytes(24 << 20, test::TestSeed());
  const Digest digest = Digest::Of(content);
  ASSERT_OK(WriteFileAtomic(dir_ / "blob", content));
  EXPECT_CODE(client_->StatBlob(ref, digest), StatusCode::kNotFound);
  uint64_t told = 0;
  ASSERT_OK(client_->PushBlobFile(ref, digest, dir_ / "blob", [&](uint64_t n) { told += n; }));
  EXPECT_EQ(told, content.size());
  EXPECT_EQ(*client_->StatBlob(ref, digest), content.size());
  ASSERT_OK(client_->PushBlobFile(ref, digest, dir_ / "blob", nullptr));
  ASSERT_OK(client_->PushBlob(ref, Digest::Of("{}"), "{}"));

  std::string got;
  ASSERT_OK(client_->GetBlob(ref, digest, [&](std::span<const uint8_t> data) {
    got.append(reinterpret_cast<const char*>(data.data()), data.size());
    return OkStatus();
  }));
  EXPECT_TRUE(got == content);
  Result<std::string> range = client_->GetBlobRange(ref, digest, 12345, 1 << 20);
  ASSERT_OK(range);
  EXPECT_TRUE(*range == content.substr(12345, 1 << 20));
  EXPECT_CODE(client_->GetBlobRange(ref, digest, content.size(), 10), StatusCode::kOutOfRange);

  auto sink = std::make_shared<test::CollectingSink>();
  client_->Fetch({ref.ToString(), digest}, content.size() - 777, 777, sink);
  EXPECT_OK(sink->Wait());
  EXPECT_TRUE(sink->data() == content.substr(content.size() - 777));
}

TEST_F(DockerRegistryTest, ManifestsAndMounts) {
  const Reference ref = *Reference::Parse(host_ + "/team/model:v1");
  ASSERT_OK(client_->PushBlob(ref, Digest::Of("{}"), "{}"));
  ASSERT_OK(client_->PushBlob(ref, Digest::Of("layer"), "layer"));
  const std::string type = "application/vnd.oci.image.manifest.v1+json";
  const std::string manifest =
      R"({"schemaVersion":2,"mediaType":")" + type + R"(","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":")" +
      Digest::Of("{}").ToString() + R"(","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":")" +
      Digest::Of("layer").ToString() + R"(","size":5}]})";
  ASSERT_OK(client_->PutManifest(ref, type, manifest));
  Result<ManifestResponse> back = client_->GetManifest(ref);
  ASSERT_OK(back);
  EXPECT_EQ(back->body, manifest);
  EXPECT_EQ(back->media_type, type);
  Reference by_digest = ref;
  by_digest.tag = "";
  by_digest.digest = back->digest;
  EXPECT_OK(client_->GetManifest(by_digest));
  Result<ManifestResponse> missing = client_->GetManifest(*Reference::Parse(host_ + "/team/model:absent"));
  EXPECT_CODE(missing, StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("registry " + host_ + ": repository team/model: manifest absent: HTTP 404"),
            std::string::npos)
      << missing.status().ToString();

  const Reference other = *Reference::Parse(host_ + "/team/other");
  Result<bool> mounted = client_->MountBlob(other, Digest::Of("layer"), "team/model");
  ASSERT_OK(mounted);
  EXPECT_TRUE(*mounted);
  EXPECT_EQ(*client_->StatBlob(other, Digest::Of("layer")), 5u);
  mounted = client_->MountBlob(other, Digest::Of("nowhere"), "team/model");
  ASSERT_OK(mounted);
  EXPECT_FALSE(*mounted);
}

}  // namespace
}  // namespace headrace::registry
