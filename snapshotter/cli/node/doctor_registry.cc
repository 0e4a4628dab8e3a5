// doctor: credentials, and whether given images can be had with them.
#include <sys/stat.h>

#include "snapshotter/cli/node/doctor.h"

namespace headrace::cli {
namespace {

void CheckSources(Patient& p) {
  const config::FusedConfig& fused = p.headrace.fused;
  const struct {
    const char* key;
    const std::string& path;
  } files[] = {{"registry.docker_config", fused.docker_config}, {"keychain.credential_provider_config", fused.credential_provider_config},
               {"keychain.credential_provider_bin_dir", fused.credential_provider_bin_dir}, {"keychain.credentials_file", fused.credentials_file}};
  for (const auto& [key, path] : files) {
    p.Check(path.empty() || p.root.Exists(path), "credentials-missing", Severity::kError, std::string(key) + " names " + path + ", which is not there: private images cannot be read",
            "correct " + std::string(key) + " in " + p.options.headrace_config);
  }
  p.Check(fused.credential_provider_config.empty() == fused.credential_provider_bin_dir.empty(), "credential-provider-half", Severity::kError,
          "one of keychain.credential_provider_config and credential_provider_bin_dir is set without the other",
          "set both to what kubelet has (--image-credential-provider-config, --image-credential-provider-bin-dir)");
  struct stat st {};
  const bool open = !fused.credentials_file.empty() && ::stat(p.root.At(fused.credentials_file).c_str(), &st) == 0 && (st.st_mode & 077) != 0;
  p.Check(!open, "credentials-open", Severity::kError, fused.credentials_file + " may be read by others than its owner and is not used", "chmod 600 " + fused.credentials_file);
}

// Pull secrets reach the daemon through the CRI proxy only if kubelet asks it.
void CheckProxy(Patient& p) {
  const std::string& socket = p.headrace.snapshotter.cri_socket;
  if (socket.empty()) return;
  std::string asked;
  for (const std::string& pid : p.root.List("/proc")) {
    if (p.root.Line("/proc/" + pid + "/comm") == "kubelet") asked += p.root.Line("/proc/" + pid + "/cmdline");
  }
  asked += p.root.Line("/var/lib/kubelet/config.yaml");
  p.Check(asked.find(socket) != std::string::npos, "cri-proxy-not-asked", Severity::kWarning,
          "keychain.cri_socket is " + socket + ", but kubelet does not use it: pull secrets of pods do not reach Headrace", "imageServiceEndpoint: unix://" + socket +
          " in /var/lib/kubelet/config.yaml, then restart kubelet");
}

std::string FixOf(const Status& failure, const Patient& p) {
  switch (failure.code()) {
    case StatusCode::kUnauthenticated:
    case StatusCode::kPermissionDenied:
      return "give the daemon credentials: [keychain] or [registry] docker_config in " + p.options.headrace_config;
    case StatusCode::kNotFound:
      return "compare the image's name and tag with the registry";
    case StatusCode::kInvalidArgument:
      return "write the image as pods do: registry/repository:tag";
    default:
      return "is the name right, the registry up, and reachable from this node (proxy, firewall)? Without TLS it belongs into [registry] plain_http, with an own authority into hosts.toml";
  }
}

}  // namespace

void CheckRegistries(Patient& p) {
  CheckSources(p);
  CheckProxy(p);
  for (const std::string& image : p.options.images) {
    const Result<bool> lazy = p.questions.image_is_lazy(image, p.headrace.fused);
    p.Check(lazy.ok(), "registry", Severity::kError, image + ": " + lazy.status().message(), FixOf(lazy.status(), p));
    if (!lazy.ok()) continue;
    p.Check(*lazy, "image-not-lazy", Severity::kWarning, image + " has no layers of Headrace: those without a table of contents are read whole before they are shown",
            "headrace convert " + image + " NEW-NAME");
  }
}

}  // namespace headrace::cli
