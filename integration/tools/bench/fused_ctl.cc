// fused-ctl: speaks headrace-fused's control API (proto/headrace/control.proto) without containerd, for the benchmark.
//
//   fused-ctl --socket PATH mount --ref HOST:PORT/NAME:TAG --layout DIR [--first-id N]
//       mounts the layers of the image in the OCI layout DIR one on another, as the snapshotter would when it pulls the same
//       image from HOST:PORT; {"paths":[...],"ids":[...],"seconds"}, the lowest layer first: the last path is the whole image.
//       --times M: so often, as M containers' images would be; ids count on
//   fused-ctl --socket PATH status                what the daemon says of its layers and metrics
//   fused-ctl --socket PATH unmount --ids 1,2,3   the greatest id first, because it stands on the others
//   fused-ctl --socket PATH unmount --first-id N --count M
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/base/text.h"
#include "fusefs/format/toc.h"
#include "fusefs/registry/reference.h"
#include "headrace/control.grpc.pb.h"
#include "integration/tools/bench/common.h"
#include "integration/tools/bench/layout.h"

namespace headrace::bench {
namespace {

namespace pb = headrace::control::v1;

constexpr std::chrono::seconds kDeadline{60};

class Client {
 public:
  explicit Client(const std::string& socket)
      : stub_(pb::Control::NewStub(grpc::CreateChannel("unix:" + socket, grpc::InsecureChannelCredentials()))) {}

  template <typename Request, typename Response>
  void Call(grpc::Status (pb::Control::Stub::*method)(grpc::ClientContext*, const Request&, Response*), const char* name,
            const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    const grpc::Status status = (stub_.get()->*method)(&context, request, response);
    if (!status.ok()) {
      Fail(std::string(name) + ": " + status.error_message() + " (gRPC code " + std::to_string(status.error_code()) + ")");
    }
  }

 private:
  std::unique_ptr<pb::Control::Stub> stub_;
};

void MountOnce(Client& client, const registry::Reference& reference, const LayoutImage& image, uint64_t first_id, Json& out) {
  std::string parent;
  for (size_t i = 0; i < image.layers.size(); ++i) {
    const cli::Descriptor& layer = image.layers[i];
    const auto toc = layer.annotations.find(std::string(format::kTocLabel));
    pb::MountRequest request;
    request.set_id(std::to_string(first_id + i));
    request.set_parent_id(parent);
    request.mutable_layer()->set_image_ref(reference.ToString());
    request.mutable_layer()->set_manifest_digest(image.manifest_digest.ToString());
    request.mutable_layer()->set_blob_digest(layer.digest.ToString());
    if (toc != layer.annotations.end()) request.mutable_layer()->set_toc(toc->second);
    pb::MountResponse response;
    do {  // a layer without a table of contents is read whole first
      response.Clear();
      client.Call(&pb::Control::Stub::Mount, "Mount", request, &response);
    } while (response.pending());
    out["paths"].push_back(response.path());
    out["ids"].push_back(request.id());
    parent = request.id();
  }
}

Json Mount(Client& client, const std::string& ref, const std::string& directory, uint64_t first_id, uint64_t times) {
  const registry::Reference reference = Get(registry::Reference::Parse(ref));
  const LayoutImage image = ReadLayout(directory, reference.tag);
  Json out = {{"paths", Json::array()}, {"ids", Json::array()}};
  const double begin = Now();
  for (uint64_t i = 0; i < times; ++i) MountOnce(client, reference, image, first_id + i * image.layers.size(), out);
  out["seconds"] = Now() - begin;
  return out;
}

Json DaemonStatus(Client& client) {
  pb::StatusResponse response;
  client.Call(&pb::Control::Stub::Status, "Status", pb::StatusRequest(), &response);
  Json out = {{"version", response.version()}, {"mountpoint", response.mountpoint()}, {"layers", Json::array()}};
  for (const pb::LayerStatus& layer : response.layers()) {
    out["layers"].push_back({{"blob_digest", layer.blob_digest()},
                             {"image_ref", layer.image_ref()},
                             {"size", layer.size()},
                             {"resident", layer.resident()},
                             {"files", layer.files()},
                             {"format", layer.format()},
                             {"ids", std::vector<std::string>(layer.ids().begin(), layer.ids().end())}});
  }
  out["metrics"] = std::map<std::string, int64_t>(response.metrics().begin(), response.metrics().end());
  return out;
}

Json Unmount(Client& client, std::vector<uint64_t> ids) {
  std::sort(ids.rbegin(), ids.rend());
  const double begin = Now();
  for (const uint64_t id : ids) {
    pb::UnmountRequest request;
    request.set_id(std::to_string(id));
    pb::UnmountResponse response;
    client.Call(&pb::Control::Stub::Unmount, "Unmount", request, &response);
  }
  return {{"unmounted", ids.size()}, {"seconds", Now() - begin}};
}

}  // namespace
}  // namespace headrace::bench

int main(int argc, char** argv) {
  using namespace headrace::bench;
  CLI::App app("Speaks headrace-fused's control API without containerd", "fused-ctl");
  std::string socket, ref, layout;
  uint64_t first_id = 1;
  uint64_t times = 1;
  uint64_t count = 0;
  std::vector<uint64_t> ids;
  app.add_option("--socket", socket, "control socket of headrace-fused")->required();
  app.require_subcommand(1);
  CLI::App* const mount = app.add_subcommand("mount", "mounts the layers of an image one on another");
  mount->add_option("--ref", ref, "HOST:PORT/NAME:TAG, where the daemon fetches the layers")->required();
  mount->add_option("--layout", layout, "OCI layout with the same image: the manifest is read here")->required();
  mount->add_option("--first-id", first_id, "id of the lowest layer; the next ones count on (1)");
  mount->add_option("--times", times, "mounts it so often (1)");
  CLI::App* const status = app.add_subcommand("status", "what is mounted, and the metrics");
  CLI::App* const unmount = app.add_subcommand("unmount", "takes mounts away");
  unmount->add_option("--ids", ids, "1,2,3")->delimiter(',');
  unmount->add_option("--first-id", first_id, "the lowest of --count ids that follow one another (1)");
  unmount->add_option("--count", count, "how many");
  return RunTool(app, argc, argv, [&] {
    Client client(socket);
    if (mount->parsed()) PrintLine(Mount(client, ref, layout, first_id, times));
    if (status->parsed()) PrintLine(DaemonStatus(client));
    for (uint64_t i = 0; i < count; ++i) ids.push_back(first_id + i);
    if (unmount->parsed()) PrintLine(Unmount(client, ids));
    return 0;
  });
}
