// ClientTest: a FakeRegistry with a blob, and a client with short time limits. What is logged is kept, and must hold no secret at the end.
#ifndef HEADRACE_TEST_REGISTRY_CLIENT_FIXTURE_H_
#define HEADRACE_TEST_REGISTRY_CLIENT_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/registry/client.h"
#include "test/registry/client_test_util.h"
#include "test/support/fake_registry.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::registry {

using ::testing::HasSubstr;
using ::testing::Not;
using test::CollectingSink;
using test::Fault;
using Kind = test::Fault::Kind;

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    previous_log_ = spdlog::default_logger();
    auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(log_);
    auto logger = std::make_shared<spdlog::logger>("test", sink);
    logger->set_level(spdlog::level::trace);
    spdlog::set_default_logger(logger);
    content_ = test::RandomBytes(1 << 20, 7);
    digest_ = registry_.AddBlob("team/model", content_);
    options_.docker_config_path = dir_ / "config.json";
    options_.stall_timeout = std::chrono::milliseconds(1000);
    options_.connect_timeout = std::chrono::milliseconds(5000);
    options_.stall_bytes_min = 1;
    options_.request_deadline = std::chrono::milliseconds(15'000);
    NewClient();
  }
  ~ClientTest() override {
    client_.reset();
    spdlog::set_default_logger(previous_log_);
    NoSecret(log_.str());
  }
  void NewClient() { client_ = *Client::Create(options_, metrics_); }
  void NoSecret(const std::string& text) {
    for (const char* secret : {"hunter2", "secret-signature", "fake-token", "refresh-me"}) EXPECT_THAT(text, Not(HasSubstr(secret)));
  }
  Reference Ref(const std::string& name = "team/model") { return *Reference::Parse(registry_.host() + "/" + name); }
  std::shared_ptr<CollectingSink> StartFetch(uint64_t offset, uint64_t size) {
    auto sink = std::make_shared<CollectingSink>();
    client_->Fetch({Ref().ToString(), digest_}, offset, size, sink);
    return sink;
  }
  // The status of one asynchronous attempt; if OK, the bytes were right.
  Status FetchStatus(uint64_t offset, uint64_t size) {
    auto sink = StartFetch(offset, size);
    Status status = sink->Wait();
    if (status.ok()) {
      EXPECT_TRUE(sink->data() == content_.substr(offset, size));
    }
    EXPECT_EQ(sink->done_calls(), 1);
    NoSecret(status.ToString());
    return status;
  }
  Result<std::string> Blob() {
    std::string got;
    Status status = client_->GetBlob(Ref(), digest_, [&](std::span<const uint8_t> data) {
      got.append(reinterpret_cast<const char*>(data.data()), data.size());
      return OkStatus();
    });
    NoSecret(status.ToString());
    if (!status.ok()) return status;
    return got;
  }
  void WriteConfig(const std::string& entry) {
    ASSERT_OK(WriteFileAtomic(options_.docker_config_path, R"({"auths":{")" + registry_.host() + R"(":)" + entry + "}}"));
  }
  void LogIn() { WriteConfig(R"({"username":"user","password":"hunter2"})"); }

  std::shared_ptr<spdlog::logger> previous_log_;
  std::ostringstream log_;
  test::TempDir dir_;
  test::FakeRegistry registry_;
  std::string content_;
  Digest digest_;
  Metrics metrics_;
  ClientOptions options_;
  std::unique_ptr<Client> client_;
};

}  // namespace headrace::registry

#endif  // HEADRACE_TEST_REGISTRY_CLIENT_FIXTURE_H_
