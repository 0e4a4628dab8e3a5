// The CRI image-service proxy against a real gRPC backend in this process, the parser of its PullImage requests, and the keeper that tells
// headrace-fused. Every call has a deadline.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <future>
#include <thread>

#include "fusefs/base/mutex.h"
#include "fusefs/base/text.h"
#include "headrace/pull_image.pb.h"
#include "snapshotter/keychain/cri_proxy.h"
#include "snapshotter/keychain/secret_keeper.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::snapshotter {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

grpc::ByteBuffer Buffer(const std::string& text) {
  grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string out;
  for (const grpc::Slice& slice : slices) out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return out;
}

std::string PullRequest(const std::string& image, const std::string& user, const std::string& password) {
  cri::v1::PullImageRequest request;
  request.mutable_image()->set_image(image);
  if (!user.empty()) request.mutable_auth()->set_username(user);
  if (!password.empty()) request.mutable_auth()->set_password(password);
  // A field that neither we nor the public API know: it must come through.
  return request.SerializeAsString() + "\xfa\x3f\x03xyz";
}

// Plays containerd: echoes whatever it gets, as the method's name asks.
//   .../Echo: each message back, the status OK. .../Count: reads to the end, one answer with the number of messages. .../Fail: an error with
//   details. .../Hang: nothing, until it is cancelled. .../Many: 1000 messages for one.
class Backend : public grpc::CallbackGenericService {
 public:
  explicit Backend(const std::string& socket) {
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(64 << 20);
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
  }
  ~Backend() override { server_->Shutdown(std::chrono::system_clock::now()); }

  class Call : public grpc::ServerGenericBidiReactor {
   public:
    Call(Backend& owner, grpc::GenericCallbackServerContext* context) : owner_(owner), method_(context->method()) {
      for (const auto& [key, value] : context->client_metadata()) {
        if (key == "x-test" || key == "x-test-bin") context->AddInitialMetadata("echo-" + std::string(key.data(), key.size()), {value.data(), value.size()});
      }
      context->AddTrailingMetadata("x-trailing", "end");
      {
        MutexLock lock(owner_.mu_);
        owner_.deadlines_.push_back(context->deadline());
      }
      if (Is("/Fail")) {
        Finish(grpc::Status(grpc::StatusCode::DATA_LOSS, "bad \xc3\xa4 thing", std::string("\x00\x01" "details", 9)));
        return;
      }
      StartRead(&in_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) {
        if (Is("/Hang")) return;
        if (Is("/Count")) {
          out_ = Buffer(std::to_string(count_));
          return StartWriteAndFinish(&out_, grpc::WriteOptions(), grpc::Status::OK);
        }
        if (!finished_) Finish(grpc::Status::OK);
        finished_ = true;
        return;
      }
      ++count_;
      {
        MutexLock lock(owner_.mu_);
        owner_.messages_.push_back(Text(in_));
        owner_.changed_.NotifyAll();
      }
      out_ = in_;
      if (Is("/Count") || Is("/Hang")) return StartRead(&in_);
      StartWrite(&out_);
    }
    void OnWriteDone(bool ok) override {
      if (!ok) return;
      if (Is("/Many") && ++written_ < 1000) return StartWrite(&out_);
      StartRead(&in_);
    }
    void OnCancel() override {
      if (Is("/Hang")) {
        {
          MutexLock lock(owner_.mu_);
          ++owner_.cancelled_;
          owner_.changed_.NotifyAll();
        }
        Finish(grpc::Status::CANCELLED);
      }
    }
    void OnDone() override { owned_.reset(); }
    std::unique_ptr<Call> owned_;  // a reactor owns itself until OnDone

   private:
    bool Is(std::string_view suffix) const { return method_.ends_with(suffix); }
    Backend& owner_;
    const std::string method_;
    grpc::ByteBuffer in_, out_;
    int count_ = 0, written_ = 0;
    bool finished_ = false;
  };
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    auto call = std::make_unique<Call>(*this, context);
    Call* raw = call.get();
    raw->owned_ = std::move(call);
    return raw;
  }

  std::vector<std::string> messages() {
    MutexLock lock(mu_);
    return messages_;
  }
  bool WaitForMessages(size_t n) {
    MutexLock lock(mu_);
    return changed_.WaitFor(mu_, std::chrono::seconds(10), [&] { return messages_.size() >= n; });
  }
  bool WaitForCancel() {
    MutexLock lock(mu_);
    return changed_.WaitFor(mu_, std::chrono::seconds(10), [&] { return cancelled_ > 0; });
  }
  std::chrono::system_clock::time_point last_deadline() {
    MutexLock lock(mu_);
    return deadlines_.back();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::string> messages_;
  std::vector<std::chrono::system_clock::time_point> deadlines_;
  int cancelled_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// A client of raw messages, blocking.
class RawCall {
 public:
  RawCall(const std::string& socket, const std::string& method, std::chrono::seconds deadline = std::chrono::seconds(20)) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(64 << 20);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = std::make_unique<grpc::GenericStub>(
        grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
    context_.set_deadline(std::chrono::system_clock::now() + deadline);
    context_.AddMetadata("x-test", "value");
    context_.AddMetadata("x-test-bin", std::string("\x00\xff", 2));
    call_ = stub_->PrepareCall(&context_, method, &queue_);
    call_->StartCall(nullptr);
    Next();
  }
  ~RawCall() {
    if (!finished_) {
      context_.TryCancel();
      Finish();
    }
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }
  bool Write(const std::string& text) {
    call_->Write(Buffer(text), nullptr);
    return Next();
  }
  void WritesDone() {
    call_->WritesDone(nullptr);
    Next();
  }
  std::optional<std::string> Read() {
    grpc::ByteBuffer buffer;
    call_->Read(&buffer, nullptr);
    if (!Next()) return std::nullopt;
    return Text(buffer);
  }
  grpc::Status Finish() {
    finished_ = true;
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Next();
    return status;
  }
  // One message there, one back.
  grpc::Status Unary(const std::string& request, std::string* response) {
    Write(request);
    WritesDone();
    if (auto got = Read()) *response = *got;
    while (Read()) {
    }
    return Finish();
  }
  grpc::ClientContext& context() { return context_; }

 private:
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool finished_ = false;
};

class CriProxyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backend_ = std::make_unique<Backend>(backend_socket_);
    StartProxy();
  }
  void StartProxy() {
    auto proxy = CriProxy::Start({.socket = socket_, .backend = backend_socket_},
                                 [this](PullSecret secret, std::function<void()> done) {
                                   {
                                     MutexLock lock(mu_);
                                     secrets_.push_back(secret);
                                     messages_when_told_.push_back(backend_->messages().size());
                                   }
                                   if (keep_waiting_) held_ = std::move(done);
                                   else done();
                                 });
    ASSERT_OK(proxy);
    proxy_ = std::move(*proxy);
  }
  std::vector<PullSecret> secrets() {
    MutexLock lock(mu_);
    return secrets_;
  }

  test::TempDir dir_;
  const std::string socket_ = dir_ / "proxy.sock", backend_socket_ = dir_ / "backend.sock";
  Mutex mu_;
  std::vector<PullSecret> secrets_;
  std::vector<size_t> messages_when_told_;
  std::atomic<bool> keep_waiting_{false};
  std::function<void()> held_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<CriProxy> proxy_;
};

// Goal: a method that nobody knows goes through with its bytes, metadata of both directions and deadline.
TEST_F(CriProxyTest, UnknownUnaryMethod) {
  for (const std::string& body : {std::string(), std::string("\x00\xff raw \x01", 8), std::string(20 << 20, 'x')}) {
    RawCall call(socket_, "/runtime.v9.NewService/Echo");
    std::string answer;
    grpc::Status status = call.Unary(body, &answer);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(answer == body);
    auto head = call.context().GetServerInitialMetadata();
    EXPECT_EQ(head.find("echo-x-test")->second, "value");
    EXPECT_EQ(head.find("echo-x-test-bin")->second, (grpc::string_ref("\x00\xff", 2)));
    EXPECT_EQ(call.context().GetServerTrailingMetadata().find("x-trailing")->second, "end");
  }
  const auto left = backend_->last_deadline() - std::chrono::system_clock::now();
  EXPECT_GT(left, std::chrono::seconds(1));
  EXPECT_LT(left, std::chrono::seconds(21));
  EXPECT_THAT(secrets(), IsEmpty());
}

TEST_F(CriProxyTest, Streams) {
  RawCall both(socket_, "/x.Y/Echo");  // message by message in both directions
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(both.Write("m" + std::to_string(i)));
    EXPECT_EQ(both.Read(), "m" + std::to_string(i));
  }
  both.WritesDone();
  EXPECT_EQ(both.Read(), std::nullopt);
  EXPECT_TRUE(both.Finish().ok());

  RawCall up(socket_, "/x.Y/Count");
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(up.Write("x"));
  up.WritesDone();
  EXPECT_EQ(up.Read(), "1000");
  EXPECT_TRUE(up.Finish().ok());

  RawCall down(socket_, "/x.Y/Many");
  ASSERT_TRUE(down.Write("y"));
  down.WritesDone();
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(down.Read(), "y");
  EXPECT_EQ(down.Read(), std::nullopt);
  EXPECT_TRUE(down.Finish().ok());
}

TEST_F(CriProxyTest, StatusWithDetails) {
  RawCall call(socket_, "/x.Y/Fail");
  std::string unused;
  grpc::Status status = call.Unary("q", &unused);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(status.error_message(), "bad \xc3\xa4 thing");
  EXPECT_EQ(status.error_details(), std::string("\x00\x01" "details", 9));
}

// Goal: the backend hears of a caller who goes away, and of a deadline.
TEST_F(CriProxyTest, CancellationAndDeadline) {
  {
    RawCall call(socket_, "/x.Y/Hang");
    ASSERT_TRUE(call.Write("z"));
    ASSERT_TRUE(backend_->WaitForMessages(1));
    call.context().TryCancel();
    EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::CANCELLED);
    EXPECT_TRUE(backend_->WaitForCancel());
  }
  RawCall late(socket_, "/x.Y/Hang", std::chrono::seconds(1));
  std::string unused;
  EXPECT_EQ(late.Unary("z", &unused).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(CriProxyTest, BackendIsDownAndComesBack) {
  backend_.reset();
  std::string answer;
  EXPECT_EQ(RawCall(socket_, "/x.Y/Echo").Unary("q", &answer).error_code(), grpc::StatusCode::UNAVAILABLE);
  backend_ = std::make_unique<Backend>(backend_socket_);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(15);
  grpc::Status status;
  do {
    status = RawCall(socket_, "/x.Y/Echo").Unary("again", &answer);
  } while (!status.ok() && std::chrono::steady_clock::now() < give_up);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(answer, "again");
}

// Goal: a pull's secret is known before the backend sees the pull, and the request comes through unchanged.
TEST_F(CriProxyTest, PullImageIsRemembered) {
  const std::string request = PullRequest("registry.example.com/team/model:1", "user", "hunter2");
  std::string answer;
  grpc::Status status = RawCall(socket_, "/runtime.v1.ImageService/Echo").Unary(request, &answer);
  EXPECT_THAT(secrets(), IsEmpty()) << "another method's message is nobody's business";
  for (const char* method : {"/runtime.v1.ImageService/PullImage", "/runtime.v1alpha2.ImageService/PullImage"}) {
    status = RawCall(socket_, method).Unary(request, &answer);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(answer == request);
  }
  EXPECT_THAT(secrets(), ElementsAre(PullSecret{"registry.example.com/team/model:1", "user", "hunter2", ""},
                                     PullSecret{"registry.example.com/team/model:1", "user", "hunter2", ""}));
  EXPECT_EQ(messages_when_told_[0], 1u);  // of the Echo before
  status = RawCall(socket_, "/runtime.v1.ImageService/PullImage").Unary(PullRequest("a/b", "", ""), &answer);
  EXPECT_TRUE(status.ok());
  status = RawCall(socket_, "/runtime.v1.ImageService/PullImage").Unary("\xff\xff not a message", &answer);
  EXPECT_TRUE(status.ok());
  EXPECT_THAT(secrets(), SizeIs(2));
}

// Goal: a keeper that takes its time holds that pull back and nothing else.
TEST_F(CriProxyTest, SlowKeeperHoldsOnlyItsPull) {
  keep_waiting_ = true;
  auto pull = std::async(std::launch::async, [&] {
    std::string answer;
    return RawCall(socket_, "/runtime.v1.ImageService/PullImage").Unary(PullRequest("h.example.com/a", "u", "p"), &answer);
  });
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (secrets().empty() && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  std::string answer;
  EXPECT_TRUE(RawCall(socket_, "/x.Y/Echo").Unary("q", &answer).ok());
  EXPECT_THAT(backend_->messages(), ElementsAre("q"));
  held_();
  EXPECT_TRUE(pull.get().ok());
}

TEST_F(CriProxyTest, EndsWithCallsUnderWay) {
  RawCall call(socket_, "/x.Y/Hang");
  ASSERT_TRUE(call.Write("z"));
  ASSERT_TRUE(backend_->WaitForMessages(1));
  proxy_.reset();
  EXPECT_FALSE(call.Finish().ok());
  StartProxy();  // over the socket that is still there
  std::string answer;
  EXPECT_TRUE(RawCall(socket_, "/x.Y/Echo").Unary("q", &answer).ok());
}

TEST_F(CriProxyTest, SocketIsRootsAndMistakesAreNamed) {
  struct stat info {};
  ASSERT_EQ(::stat(socket_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  auto start = [](const std::string& socket, const std::string& backend) {
    return CriProxy::Start({.socket = socket, .backend = backend}, [](PullSecret, std::function<void()> done) { done(); }).status();
  };
  EXPECT_THAT(start("relative", backend_socket_).message(), HasSubstr("keychain.cri_socket"));
  EXPECT_THAT(start(dir_ / "a", "").message(), HasSubstr("keychain.cri_backend"));
  EXPECT_THAT(start(dir_ / "a", dir_ / "a").message(), HasSubstr("forward to itself"));
  EXPECT_THAT(start(dir_ / std::string(120, 'a'), backend_socket_).message(), HasSubstr("107 bytes"));
}

// Goal: AuthConfig means what containerd takes it to mean.
TEST(PullSecretTest, Forms) {
  cri::v1::PullImageRequest request;
  auto parse = [&] { return ParsePullSecret(request.SerializeAsString()); };
  request.mutable_image()->set_image("busybox");
  EXPECT_EQ(parse(), std::nullopt);
  cri::v1::AuthConfig& auth = *request.mutable_auth();
  EXPECT_EQ(parse(), std::nullopt);
  auth.set_auth(Base64Encode(std::string("au:ap\0\0", 7)));
  EXPECT_EQ(parse(), (PullSecret{"busybox", "au", "ap", ""}));
  auth.set_identity_token("it");
  EXPECT_EQ(parse(), (PullSecret{"busybox", "", "", "it"}));
  auth.set_username("u");
  auth.set_password("p");
  EXPECT_EQ(parse(), (PullSecret{"busybox", "u", "p", ""}));
  auth.set_server_address("https://index.docker.io/v1/");
  EXPECT_EQ(parse(), (PullSecret{"busybox", "u", "p", ""}));
  auth.set_server_address("other.example.com");
  EXPECT_EQ(parse(), std::nullopt);
  request.mutable_image()->set_image("other.example.com/x");
  EXPECT_NE(parse(), std::nullopt);
  request.mutable_image()->set_image("");
  EXPECT_EQ(parse(), std::nullopt);
  request.mutable_image()->set_image(std::string(5000, 'x'));
  EXPECT_EQ(parse(), std::nullopt);
  request.mutable_image()->set_image("busybox");
  request.clear_auth();
  request.mutable_auth()->set_auth("###");
  EXPECT_EQ(parse(), std::nullopt);
  request.mutable_auth()->set_registry_token("rt");
  request.mutable_auth()->clear_auth();
  EXPECT_EQ(parse(), std::nullopt);
  EXPECT_TRUE(IsPullImage("/runtime.v1.ImageService/PullImage"));
  EXPECT_FALSE(IsPullImage("/runtime.v1.ImageService/ListImages"));
  EXPECT_FALSE(IsPullImage(""));
}

// Goal: a daemon that was down or restarted is told everything, in order; a pull is never held up for longer than the time limit.
TEST(SecretKeeperTest, TellsAgainWhatIsForgotten) {
  Mutex mu;
  CondVar changed;
  std::vector<std::string> told;  // "image" each
  std::string instance = "one";
  bool down = false;
  auto tell = [&](const std::vector<PullSecret>& secrets, std::chrono::milliseconds) -> Result<std::string> {
    MutexLock lock(mu);
    if (down) return UnavailableError("down");
    for (const PullSecret& one : secrets) told.push_back(one.image);
    changed.NotifyAll();
    return instance;
  };
  auto wait_for = [&](size_t n) {
    MutexLock lock(mu);
    return changed.WaitFor(mu, std::chrono::seconds(10), [&] { return told.size() >= n; });
  };
  SecretKeeper keeper(tell, {.tell_timeout = std::chrono::milliseconds(100), .check_every = std::chrono::milliseconds(20)});
  auto pull = [&](const std::string& image) {
    std::promise<void> done;
    keeper.Tell({image, "u", "p", ""}, [&] { done.set_value(); });
    return done.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  };
  ASSERT_TRUE(pull("a"));
  ASSERT_TRUE(wait_for(2));  // at once, and by the first check
  {
    MutexLock lock(mu);
    EXPECT_THAT(told, ElementsAre("a", "a"));
    told.clear();
    down = true;
  }
  ASSERT_TRUE(pull("b"));
  ASSERT_TRUE(pull("a"));
  {
    MutexLock lock(mu);
    EXPECT_THAT(told, IsEmpty());
    down = false;
    instance = "two";
  }
  ASSERT_TRUE(wait_for(2));
  MutexLock lock(mu);
  EXPECT_THAT(told, ElementsAre("b", "a"));
}

}  // namespace
}  // namespace headrace::snapshotter
