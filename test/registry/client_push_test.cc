// Uploads, mounts and manifests, with and without faults.
#include "test/registry/client_fixture.h"

namespace headrace::registry {
namespace {

class ClientPushTest : public ClientTest {
 protected:
  ClientPushTest() {
    file_content_ = test::RandomBytes(9 << 20, 9);
    file_digest_ = Digest::Of(file_content_);
    path_ = dir_ / "blob";
    EXPECT_OK(WriteFileAtomic(path_, file_content_));
  }
  Status Push() {
    told_ = 0;
    Status status = client_->PushBlobFile(Ref("push/to"), file_digest_, path_, [this](uint64_t n) { told_ += n; });
    NoSecret(status.ToString());
    return status;
  }
  bool Arrived() { return registry_.Blob("push/to", file_digest_) == file_content_; }

  std::string file_content_, path_;
  Digest file_digest_;
  uint64_t told_ = 0;
};

TEST_F(ClientPushTest, PushesOnce) {
  EXPECT_OK(Push());
  EXPECT_TRUE(Arrived());
  EXPECT_EQ(told_, file_content_.size());
  EXPECT_OK(Push());
  EXPECT_EQ(told_, file_content_.size());
  EXPECT_EQ(registry_.counts().uploads, 1u);
  EXPECT_OK(client_->PushBlob(Ref("push/to"), Digest::Of("{}"), "{}"));
  EXPECT_EQ(registry_.Blob("push/to", Digest::Of("{}")), "{}");
  EXPECT_OK(client_->PushBlob(Ref("push/to"), Digest::Of(""), ""));
  EXPECT_EQ(registry_.Blob("push/to", Digest::Of("")), "");
}

TEST_F(ClientPushTest, WithToken) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  EXPECT_OK(Push());
  EXPECT_TRUE(Arrived());
  bool asked = false;
  for (const auto& request : registry_.requests()) asked = asked || request.target.find("pull%2Cpush") != std::string::npos;
  EXPECT_TRUE(asked);
}

TEST_F(ClientPushTest, StartsAnewAfterFaults) {
  registry_.AddFault({.kind = Kind::kStatus, .method = "PUT", .status = 500});
  registry_.AddFault({.kind = Kind::kClose, .method = "PUT"});
  registry_.AddFault({.kind = Kind::kStatus, .method = "POST", .status = 503});
  EXPECT_OK(Push());
  EXPECT_TRUE(Arrived());
  EXPECT_EQ(told_, file_content_.size());
}

TEST_F(ClientPushTest, TokenExpiresBetweenPostAndPut) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  EXPECT_OK(client_->PushBlob(Ref("push/to"), Digest::Of("x"), "x"));
  registry_.AddFault({.kind = Kind::kStatus, .method = "PUT", .status = 401,
                      .headers = {"WWW-Authenticate: Bearer realm=\"http://" + registry_.host() + "/token\",service=\"fake\""}});
  EXPECT_OK(Push());
  EXPECT_TRUE(Arrived());
}

// Goal: an answer that was lost after the registry had stored the blob is no reason to send it again.
TEST_F(ClientPushTest, LostAnswer) {
  registry_.AddFault({.kind = Kind::kHold, .method = "PUT"});
  options_.stall_timeout = std::chrono::milliseconds(400);
  NewClient();
  EXPECT_OK(Push());
  EXPECT_TRUE(Arrived());
  EXPECT_EQ(registry_.counts().uploads, 1u);
  registry_.Release();
}

TEST_F(ClientPushTest, FinalFailures) {
  registry_.AddFault({.kind = Kind::kStatus, .method = "POST", .times = -1, .status = 403,
                      .body = R"({"errors":[{"code":"DENIED","message":"read only"}]})"});
  Status status = Push();
  EXPECT_CODE(status, StatusCode::kPermissionDenied);
  EXPECT_THAT(status.message(), HasSubstr("registry " + registry_.host() + ": repository push/to: upload of blob " + file_digest_.ToString()));
  EXPECT_THAT(status.message(), HasSubstr("DENIED: read only"));
  registry_.ClearFaults();
  EXPECT_CODE(client_->PushBlob(Ref("push/to"), file_digest_, "something else"), StatusCode::kInvalidArgument);
  EXPECT_CODE(client_->PushBlobFile(Ref("push/to"), file_digest_, dir_ / "absent", nullptr), StatusCode::kNotFound);
  registry_.AddFault({.kind = Kind::kStatus, .method = "POST", .times = -1, .status = 202});
  EXPECT_CODE(Push(), StatusCode::kInvalidArgument);  // no Location
}

TEST_F(ClientPushTest, UploadElsewhereGetsNoCredentials) {
  registry_.RequireBasic("user", "hunter2");
  LogIn();
  registry_.AddFault({.kind = Kind::kStatus, .method = "POST", .status = 202,
                      .headers = {"Location: http://" + registry_.cdn_host() + "/store/1?sig=secret-signature"}});
  registry_.AddFault({.kind = Kind::kStatus, .method = "PUT", .path_contains = "/store/", .status = 201});
  EXPECT_OK(Push());
  auto last = registry_.requests().back();
  EXPECT_TRUE(last.cdn);
  EXPECT_EQ(last.authorization, "");
  EXPECT_THAT(last.target, HasSubstr("&digest=sha256%3A" + file_digest_.Hex()));
}

TEST_F(ClientPushTest, Mounts) {
  Result<bool> mounted = client_->MountBlob(Ref("push/to"), digest_, "team/model");
  ASSERT_OK(mounted);
  EXPECT_TRUE(*mounted);
  EXPECT_EQ(registry_.Blob("push/to", digest_), content_);
  registry_.AllowMount(false);
  mounted = client_->MountBlob(Ref("push/other"), digest_, "team/model");
  ASSERT_OK(mounted);
  EXPECT_FALSE(*mounted);
}

TEST_F(ClientPushTest, Manifests) {
  const std::string type = "application/vnd.oci.image.manifest.v1+json";
  EXPECT_OK(client_->PutManifest(Ref("push/to:v1"), type, "{\"a\":1}"));
  EXPECT_EQ(registry_.Manifest("push/to", "v1"), "{\"a\":1}");
  Result<ManifestResponse> back = client_->GetManifest(Ref("push/to:v1"));
  ASSERT_OK(back);
  EXPECT_EQ(back->media_type, type);
  Reference untagged = Ref("push/to:v1");
  untagged.tag = "";
  registry_.AddFault({.kind = Kind::kStatus, .method = "PUT", .status = 500});
  EXPECT_OK(client_->PutManifest(untagged, type, "{}"));
  EXPECT_EQ(registry_.Manifest("push/to", Digest::Of("{}").ToString()), "{}");
  EXPECT_CODE(client_->PutManifest(untagged, type, std::string(5 << 20, ' ')), StatusCode::kInvalidArgument);
  registry_.AddFault({.kind = Kind::kStatus, .method = "PUT", .status = 201, .headers = {"Docker-Content-Digest: sha256:wrong"}});
  EXPECT_CODE(client_->PutManifest(untagged, type, "{}"), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace headrace::registry
