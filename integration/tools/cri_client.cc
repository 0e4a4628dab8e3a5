// cri-client: drives a container runtime over the CRI API on a unix socket, for the integration tests. JSON on stdout, errors on
// stderr, exit code 1 if a call failed.
//
//   cri-client -e SOCKET ready [--timeout S]      waits until the runtime answers and says RuntimeReady
//   cri-client -e SOCKET pull IMAGE [--auth-file FILE]       {"image_ref","start_ns","end_ns"}; FILE has USER:PASSWORD, no argument is a secret
//   cri-client -e SOCKET --image-endpoint SOCKET ...         the image service is somewhere else, as the kubelet's --image-service-endpoint
//   cri-client -e SOCKET images | remove-image IMAGE | pods
//   cri-client -e SOCKET run SPEC.json            {"pod","containers":{name:id},"steps":[{"step","start_ns","end_ns"}]}
//   cri-client -e SOCKET state ID | wait ID [--timeout S]    {"state","created_ns","started_ns","finished_ns","exit_code",...}
//   cri-client -e SOCKET stop ID [--timeout S] | remove ID
//   cri-client -e SOCKET remove-pod ID            stops it first
//
// SPEC: {"name", "log_directory", "cgroup_parent"?, "share_process_namespace"?, "pull": [image...]?,
//        "containers": [{"name", "image", "command": [...], "args": [...]?, "env": {}?, "log_path"?, "readonly_rootfs"?,
//                        "mounts": [{"container_path", "host_path" or "image", "sub_path"?, "readonly"?}]?}]}
// Pods use the host's network. Containers are created and started in their order. Times are realtime nanoseconds.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>

#include "cri.grpc.pb.h"

namespace {

namespace cri = runtime::v1;
using Json = nlohmann::ordered_json;
using std::chrono::steady_clock;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

class CriClient {
 public:
  CriClient(const std::string& runtime, const std::string& images) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(16 << 20);
    const auto channel = [&](const std::string& socket) {
      return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
    };
    runtime_ = cri::RuntimeService::NewStub(channel(runtime));
    images_ = cri::ImageService::NewStub(channel(images.empty() ? runtime : images));
  }

  Json Ready(int timeout_s);
  Json Pull(const std::string& image, const std::string& auth);
  Json Images();
  Json RemoveImage(const std::string& image);
  Json Pods();
  Json Run(const Json& spec);
  Json State(const std::string& id);
  Json Wait(const std::string& id, int timeout_s);
  Json Stop(const std::string& id, int timeout_s);
  Json Remove(const std::string& id);
  Json RemovePod(const std::string& id);

 private:
  // One call with a deadline; throws with the name of the call and the runtime's answer.
  template <typename Stub, typename Request, typename Response>
  void Call(Stub* stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const char* name,
            const Request& request, Response* response, int deadline_s = 600) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(deadline_s));
    const grpc::Status status = (stub->*method)(&context, request, response);
    if (!status.ok()) {
      throw std::runtime_error(std::string(name) + ": " + status.error_message() + " (gRPC code " +
                               std::to_string(status.error_code()) + ")");
    }
  }

  void CreateAndStart(const Json& spec, const std::string& pod, const cri::PodSandboxConfig& sandbox, Json* result);

  std::unique_ptr<cri::RuntimeService::Stub> runtime_;
  std::unique_ptr<cri::ImageService::Stub> images_;
};

using Runtime = cri::RuntimeService::Stub;
using ImageStub = cri::ImageService::Stub;

// Measures one step and adds it to result["steps"].
template <typename Work>
void Step(Json* result, const std::string& name, Work work) {
  const int64_t start = NowNs();
  work();
  (*result)["steps"].push_back({{"step", name}, {"start_ns", start}, {"end_ns", NowNs()}});
}

Json CriClient::Ready(int timeout_s) {
  const auto give_up = steady_clock::now() + std::chrono::seconds(timeout_s);
  for (std::string last;;) {
    try {
      cri::StatusResponse status;
      Call(runtime_.get(), &Runtime::Status, "Status", cri::StatusRequest(), &status, 2);
      for (const auto& condition : status.status().conditions()) {
        if (condition.type() == "RuntimeReady" && condition.status()) {
          cri::VersionResponse version;
          Call(runtime_.get(), &Runtime::Version, "Version", cri::VersionRequest(), &version, 5);
          return {{"runtime", version.runtime_name()}, {"version", version.runtime_version()}};
        }
        last = condition.type() + ": " + condition.message();
      }
    } catch (const std::runtime_error& e) {
      last = e.what();
    }
    if (steady_clock::now() > give_up) throw std::runtime_error("the runtime is not ready: " + last);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Json CriClient::Pull(const std::string& image, const std::string& auth) {
  cri::PullImageRequest request;
  request.mutable_image()->set_image(image);
  if (const size_t colon = auth.find(':'); colon != std::string::npos) {
    request.mutable_auth()->set_username(auth.substr(0, colon));
    request.mutable_auth()->set_password(auth.substr(colon + 1));
  }
  cri::PullImageResponse response;
  const int64_t start = NowNs();
  Call(images_.get(), &ImageStub::PullImage, "PullImage", request, &response, 1800);
  return {{"image_ref", response.image_ref()}, {"start_ns", start}, {"end_ns", NowNs()}};
}

Json CriClient::Images() {
  cri::ListImagesResponse response;
  Call(images_.get(), &ImageStub::ListImages, "ListImages", cri::ListImagesRequest(), &response);
  Json out = Json::array();
  for (const auto& image : response.images()) {
    Json tags = Json::array();
    for (const auto& tag : image.repo_tags()) tags.push_back(tag);
    out.push_back({{"id", image.id()}, {"tags", tags}, {"size", image.size()}, {"pinned", image.pinned()}});
  }
  return out;
}

Json CriClient::RemoveImage(const std::string& image) {
  cri::RemoveImageRequest request;
  request.mutable_image()->set_image(image);
  cri::Empty response;
  Call(images_.get(), &ImageStub::RemoveImage, "RemoveImage", request, &response);
  return Json::object();
}

Json CriClient::Pods() {
  cri::ListPodSandboxResponse response;
  Call(runtime_.get(), &Runtime::ListPodSandbox, "ListPodSandbox", cri::ListPodSandboxRequest(), &response);
  Json out = Json::array();
  for (const auto& pod : response.items()) out.push_back({{"id", pod.id()}, {"name", pod.metadata().name()}});
  return out;
}

cri::NamespaceOption Namespaces(const Json& spec) {
  cri::NamespaceOption option;
  option.set_network(cri::NODE);
  option.set_pid(spec.value("share_process_namespace", false) ? cri::POD : cri::CONTAINER);
  return option;
}

cri::ContainerConfig ContainerFromSpec(const Json& pod_spec, const Json& spec) {
  cri::ContainerConfig config;
  config.mutable_metadata()->set_name(spec.at("name").get<std::string>());
  config.mutable_image()->set_image(spec.at("image").get<std::string>());
  for (const auto& word : spec.value("command", Json::array())) config.add_command(word.get<std::string>());
  for (const auto& word : spec.value("args", Json::array())) config.add_args(word.get<std::string>());
  const Json environment = spec.value("env", Json::object());
  for (const auto& [key, value] : environment.items()) {
    auto* const entry = config.add_envs();
    entry->set_key(key);
    entry->set_value(value.get<std::string>());
  }
  for (const auto& from : spec.value("mounts", Json::array())) {
    auto* const mount = config.add_mounts();
    mount->set_container_path(from.at("container_path").get<std::string>());
    if (from.contains("image")) {
      mount->mutable_image()->set_image(from["image"].get<std::string>());
      mount->set_image_sub_path(from.value("sub_path", ""));
    } else {
      mount->set_host_path(from.at("host_path").get<std::string>());
    }
    mount->set_readonly(from.value("readonly", from.contains("image")));
  }
  config.set_log_path(spec.value("log_path", spec.at("name").get<std::string>() + ".log"));
  auto* const security = config.mutable_linux()->mutable_security_context();
  *security->mutable_namespace_options() = Namespaces(pod_spec);
  security->set_readonly_rootfs(spec.value("readonly_rootfs", false));
  return config;
}

void CriClient::CreateAndStart(const Json& spec, const std::string& pod, const cri::PodSandboxConfig& sandbox,
                               Json* result) {
  for (const auto& container : spec.value("containers", Json::array())) {
    cri::CreateContainerRequest create;
    create.set_pod_sandbox_id(pod);
    *create.mutable_config() = ContainerFromSpec(spec, container);
    *create.mutable_sandbox_config() = sandbox;
    cri::CreateContainerResponse created;
    const std::string name = container.at("name").get<std::string>();
    Step(result, "create " + name,
         [&] { Call(runtime_.get(), &Runtime::CreateContainer, "CreateContainer", create, &created); });
    (*result)["containers"][name] = created.container_id();
    cri::StartContainerRequest start;
    start.set_container_id(created.container_id());
    cri::Empty empty;
    Step(result, "start " + name, [&] { Call(runtime_.get(), &Runtime::StartContainer, "StartContainer", start, &empty); });
  }
}

Json CriClient::Run(const Json& spec) {
  Json result = {{"pod", ""}, {"containers", Json::object()}, {"steps", Json::array()}};
  for (const auto& image : spec.value("pull", Json::array())) {
    const std::string name = image.get<std::string>();
    Step(&result, "pull " + name, [&] { Pull(name, ""); });
  }
  cri::RunPodSandboxRequest request;
  cri::PodSandboxConfig& config = *request.mutable_config();
  config.mutable_metadata()->set_name(spec.at("name").get<std::string>());
  config.mutable_metadata()->set_namespace_("default");
  config.mutable_metadata()->set_uid(spec.value("uid", spec.at("name").get<std::string>() + "-" + std::to_string(NowNs())));
  config.set_log_directory(spec.at("log_directory").get<std::string>());
  config.mutable_linux()->set_cgroup_parent(spec.value("cgroup_parent", ""));
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() = Namespaces(spec);
  cri::RunPodSandboxResponse pod;
  Step(&result, "sandbox", [&] { Call(runtime_.get(), &Runtime::RunPodSandbox, "RunPodSandbox", request, &pod); });
  result["pod"] = pod.pod_sandbox_id();
  try {
    CreateAndStart(spec, pod.pod_sandbox_id(), config, &result);
  } catch (...) {
    try {
      RemovePod(pod.pod_sandbox_id());
    } catch (const std::exception& e) {
      fprintf(stderr, "cri-client: clearing up: %s\n", e.what());
    }
    throw;
  }
  return result;
}

Json CriClient::State(const std::string& id) {
  cri::ContainerStatusRequest request;
  request.set_container_id(id);
  cri::ContainerStatusResponse response;
  Call(runtime_.get(), &Runtime::ContainerStatus, "ContainerStatus", request, &response, 30);
  const auto& status = response.status();
  static const char* const kStates[] = {"created", "running", "exited", "unknown"};
  return {{"id", status.id()}, {"name", status.metadata().name()}, {"state", kStates[status.state() & 3]},
          {"created_ns", status.created_at()}, {"started_ns", status.started_at()},
          {"finished_ns", status.finished_at()}, {"exit_code", status.exit_code()},
          {"reason", status.reason()}, {"message", status.message()}, {"log_path", status.log_path()}};
}

Json CriClient::Wait(const std::string& id, int timeout_s) {
  const auto give_up = steady_clock::now() + std::chrono::seconds(timeout_s);
  for (;;) {
    Json state = State(id);
    if (state["state"] == "exited") return state;
    if (steady_clock::now() > give_up) {
      throw std::runtime_error("container " + state["name"].get<std::string>() + " is still " +
                               state["state"].get<std::string>() + " after " + std::to_string(timeout_s) + " s");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

Json CriClient::Stop(const std::string& id, int timeout_s) {
  cri::StopContainerRequest request;
  request.set_container_id(id);
  request.set_timeout(timeout_s);
  cri::Empty response;
  Call(runtime_.get(), &Runtime::StopContainer, "StopContainer", request, &response);
  return Json::object();
}

Json CriClient::Remove(const std::string& id) {
  cri::RemoveContainerRequest request;
  request.set_container_id(id);
  cri::Empty response;
  Call(runtime_.get(), &Runtime::RemoveContainer, "RemoveContainer", request, &response);
  return Json::object();
}

Json CriClient::RemovePod(const std::string& id) {
  cri::StopPodSandboxRequest stop;
  stop.set_pod_sandbox_id(id);
  cri::Empty empty;
  Call(runtime_.get(), &Runtime::StopPodSandbox, "StopPodSandbox", stop, &empty);
  cri::RemovePodSandboxRequest remove;
  remove.set_pod_sandbox_id(id);
  Call(runtime_.get(), &Runtime::RemovePodSandbox, "RemovePodSandbox", remove, &empty);
  return Json::object();
}

std::string ReadLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) throw std::runtime_error("cannot read " + path);
  return line;
}

Json ReadSpec(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot read " + path);
  return Json::parse(in);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A small CRI client for tests");
  std::string endpoint, image_endpoint, argument, auth_file;
  int timeout_s = 60;
  app.add_option("-e,--endpoint", endpoint, "unix socket of the runtime")->required();
  app.add_option("--image-endpoint", image_endpoint, "unix socket of the image service, if it is another");
  app.require_subcommand(1);
  const auto add = [&](const char* name, const char* argument_name, bool with_timeout) {
    CLI::App* const command = app.add_subcommand(name);
    if (argument_name != nullptr) command->add_option(argument_name, argument)->required();
    if (with_timeout) command->add_option("--timeout", timeout_s);
    return command;
  };
  add("ready", nullptr, true);
  add("pull", "image", false)->add_option("--auth-file", auth_file);
  add("images", nullptr, false);
  add("remove-image", "image", false);
  add("pods", nullptr, false);
  add("run", "spec", false);
  add("state", "id", false);
  add("wait", "id", true);
  add("stop", "id", true);
  add("remove", "id", false);
  add("remove-pod", "id", false);
  CLI11_PARSE(app, argc, argv);

  try {
    CriClient client(endpoint, image_endpoint);
    const std::string command = app.get_subcommands().front()->get_name();
    Json out;
    if (command == "ready") out = client.Ready(timeout_s);
    if (command == "pull") out = client.Pull(argument, auth_file.empty() ? "" : ReadLine(auth_file));
    if (command == "images") out = client.Images();
    if (command == "remove-image") out = client.RemoveImage(argument);
    if (command == "pods") out = client.Pods();
    if (command == "run") out = client.Run(ReadSpec(argument));
    if (command == "state") out = client.State(argument);
    if (command == "wait") out = client.Wait(argument, timeout_s);
    if (command == "stop") out = client.Stop(argument, timeout_s);
    if (command == "remove") out = client.Remove(argument);
    if (command == "remove-pod") out = client.RemovePod(argument);
    printf("%s\n", out.dump().c_str());
  } catch (const std::exception& e) {
    fprintf(stderr, "cri-client: %s\n", e.what());
    return 1;
  }
  return 0;
}
