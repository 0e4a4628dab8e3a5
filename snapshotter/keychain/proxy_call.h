// ProxyCall: one call that the CRI proxy forwards; a state machine over gRPC's completion queue. Not for others than cri_proxy.cc.
//
// All steps run on the proxy's one thread, as completions of its one queue (HandOver's `done` only sets an alarm). Each operation under
// way is a Tag that names the call and the step; the call goes when it is answered and no operation is under way.
//
//   accepted -> StartCall -> { Read(kubelet) -> Write(backend) }* -> WritesDone      kubelet to backend
//                        \-> ReadInitialMetadata -> { Read(backend) -> Write(kubelet) }* -> Finish(backend) -> Finish(kubelet)
#ifndef HEADRACE_SNAPSHOTTER_KEYCHAIN_PROXY_CALL_H_
#define HEADRACE_SNAPSHOTTER_KEYCHAIN_PROXY_CALL_H_

#include <grpcpp/alarm.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <array>
#include <map>
#include <memory>

#include "fusefs/base/mutex.h"
#include "snapshotter/keychain/cri_proxy.h"

namespace headrace::snapshotter {

class ProxyCall;

// What all calls of a proxy share; owns them.
struct ProxyContext {
  grpc::AsyncGenericService service;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unique_ptr<grpc::GenericStub> backend;
  CriProxy::Keeper keeper;
  Mutex mu;
  CondVar changed;
  // Under way, the one that waits to be accepted included.
  std::map<ProxyCall*, std::unique_ptr<ProxyCall>> calls HR_GUARDED_BY(mu);
};

class ProxyCall {
 public:
  enum Step {
    kAccepted,
    kEnded,  // the kubelet has its answer, or went away
    kStarted,
    kKubeletRead,
    kHandedOver,
    kBackendWrite,
    kBackendWritesDone,
    kBackendHead,
    kHeadSent,
    kBackendRead,
    kKubeletWrite,
    kBackendFinish,
    kAnswered,
    kSteps,
  };
  struct Tag {
    ProxyCall* call = nullptr;
    Step step = kAccepted;
  };

  explicit ProxyCall(ProxyContext& context);
  ProxyCall(const ProxyCall&) = delete;
  ProxyCall& operator=(const ProxyCall&) = delete;

  // Waits for the next call of a client.
  static void AwaitNext(ProxyContext& context);
  // A completion of the queue.
  static void Complete(void* tag, bool ok);

 private:
  void End();              // deletes this
  void* Begin(Step step);  // one more operation under way
  void Proceed(Step step, bool ok);
  void OnAccepted();
  void OnStarted();
  void OnKubeletRead(bool ok);
  void OnBackendHead();
  void OnBackendRead(bool ok);
  void OnBackendFinish();
  void AskBackendStatus();
  void ForwardRequestHead();

  ProxyContext& context_;
  std::array<Tag, kSteps> tags_;
  int under_way_ = 0;
  bool answered_ = false;
  bool finishing_ = false;
  bool first_message_ = true;
  grpc::GenericServerContext server_context_;
  grpc::GenericServerAsyncReaderWriter kubelet_{&server_context_};
  grpc::ClientContext client_context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> backend_;
  grpc::ByteBuffer request_, response_;
  grpc::Status status_;
  grpc::Alarm handed_over_;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_KEYCHAIN_PROXY_CALL_H_
