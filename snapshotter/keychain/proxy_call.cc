#include "snapshotter/keychain/proxy_call.h"

#include <string>
#include <vector>

namespace headrace::snapshotter {
namespace {

// What gRPC makes anew for each hop.
bool IsHopByHop(const std::string& key) {
  return key.starts_with(":") || key.starts_with("grpc-") || key == "te" || key == "content-type" ||
         key == "user-agent" || key == "host" || key == "connection";
}

std::string Text(const grpc::string_ref& ref) { return {ref.data(), ref.size()}; }

// The bytes of a message; a copy, for PullImage only.
std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string out;
  if (!buffer.Dump(&slices).ok()) return out;
  for (const grpc::Slice& slice : slices) {
    out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return out;
}

}  // namespace

ProxyCall::ProxyCall(ProxyContext& context) : context_(context) {
  for (int step = 0; step < kSteps; ++step) tags_[static_cast<size_t>(step)] = {this, static_cast<Step>(step)};
}

void ProxyCall::End() {
  std::unique_ptr<ProxyCall> self;
  ProxyContext& context = context_;
  ProxyCall* const key = this;
  {
    MutexLock lock(context.mu);
    self = std::move(context.calls[key]);
  }
  self.reset();  // without the lock, and before who waits for the end of all calls hears of it
  MutexLock lock(context.mu);
  context.calls.erase(key);
  context.changed.NotifyAll();
}

void* ProxyCall::Begin(Step step) {
  ++under_way_;
  return &tags_[step];
}

void ProxyCall::AwaitNext(ProxyContext& context) {
  auto owned = std::make_unique<ProxyCall>(context);
  ProxyCall* const call = owned.get();
  {
    MutexLock lock(context.mu);
    context.calls[call] = std::move(owned);
  }
  // Comes only for calls that were accepted, so it is counted then.
  call->server_context_.AsyncNotifyWhenDone(&call->tags_[kEnded]);
  context.service.RequestCall(&call->server_context_, &call->kubelet_, context.queue.get(), context.queue.get(),
                              call->Begin(kAccepted));
}

void ProxyCall::Complete(void* tag, bool ok) {
  const auto* completed = static_cast<Tag*>(tag);
  ProxyCall* call = completed->call;
  --call->under_way_;
  if (completed->step == kAccepted && !ok) {  // the server is being shut down
    call->End();
    return;
  }
  call->Proceed(completed->step, ok);
  if (call->answered_ && call->under_way_ == 0) call->End();
}

void ProxyCall::Proceed(Step step, bool ok) {
  switch (step) {
    case kAccepted:
      return OnAccepted();
    case kEnded:
      if (server_context_.IsCancelled()) client_context_.TryCancel();
      return;
    case kStarted:
      return ok ? OnStarted() : AskBackendStatus();
    case kKubeletRead:
      return OnKubeletRead(ok);
    case kHandedOver:
      if (finishing_) return;
      return backend_->Write(request_, Begin(kBackendWrite));
    case kBackendWrite:
      if (ok && !finishing_) kubelet_.Read(&request_, Begin(kKubeletRead));
      return;  // not ok: the backend has ended the call; its status comes
    case kBackendWritesDone:
      return;
    case kBackendHead:
      return ok ? OnBackendHead() : AskBackendStatus();
    case kHeadSent:
    case kKubeletWrite:
      if (ok) return backend_->Read(&response_, Begin(kBackendRead));
      client_context_.TryCancel();  // nobody reads any more
      return AskBackendStatus();
    case kBackendRead:
      return OnBackendRead(ok);
    case kBackendFinish:
      return OnBackendFinish();
    case kAnswered:
      answered_ = true;
      return;
    case kSteps:
      return;
  }
}

void ProxyCall::OnAccepted() {
  AwaitNext(context_);
  ++under_way_;  // kEnded, asked for in AwaitNext
  ForwardRequestHead();
  backend_ = context_.backend->PrepareCall(&client_context_, server_context_.method(), context_.queue.get());
  backend_->StartCall(Begin(kStarted));
}

void ProxyCall::ForwardRequestHead() {
  for (const auto& [key, value] : server_context_.client_metadata()) {
    if (!IsHopByHop(Text(key))) client_context_.AddMetadata(Text(key), Text(value));
  }
  client_context_.set_deadline(server_context_.raw_deadline());
}

void ProxyCall::OnStarted() {
  backend_->ReadInitialMetadata(Begin(kBackendHead));
  kubelet_.Read(&request_, Begin(kKubeletRead));
}

void ProxyCall::OnKubeletRead(bool ok) {
  if (finishing_) return;
  if (!ok) return backend_->WritesDone(Begin(kBackendWritesDone));
  const bool first = first_message_;
  first_message_ = false;
  if (first && IsPullImage(server_context_.method())) {
    if (std::optional<PullSecret> secret = ParsePullSecret(BytesOf(request_))) {
      void* tag = Begin(kHandedOver);
      // The alarm brings us back to this thread, whoever calls.
      return context_.keeper(std::move(*secret), [this, tag] {
        handed_over_.Set(context_.queue.get(), gpr_now(GPR_CLOCK_MONOTONIC), tag);
      });
    }
  }
  backend_->Write(request_, Begin(kBackendWrite));
}

void ProxyCall::OnBackendHead() {
  bool any = false;
  for (const auto& [key, value] : client_context_.GetServerInitialMetadata()) {
    if (IsHopByHop(Text(key))) continue;
    server_context_.AddInitialMetadata(Text(key), Text(value));
    any = true;
  }
  // A head of its own only where there is something in it: it goes with the first message or the status otherwise.
  if (any) return kubelet_.SendInitialMetadata(Begin(kHeadSent));
  backend_->Read(&response_, Begin(kBackendRead));
}

void ProxyCall::OnBackendRead(bool ok) {
  if (ok) return kubelet_.Write(response_, Begin(kKubeletWrite));
  AskBackendStatus();
}

void ProxyCall::AskBackendStatus() {
  if (finishing_) return;
  finishing_ = true;
  backend_->Finish(&status_, Begin(kBackendFinish));
}

void ProxyCall::OnBackendFinish() {
  for (const auto& [key, value] : client_context_.GetServerTrailingMetadata()) {
    if (!IsHopByHop(Text(key))) server_context_.AddTrailingMetadata(Text(key), Text(value));
  }
  kubelet_.Finish(status_, Begin(kAnswered));
}

}  // namespace headrace::snapshotter
