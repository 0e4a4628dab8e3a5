#include "fusefs/registry/kubelet_providers.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/image_match.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

bool EndsLikeConfig(std::string_view name) { return name.ends_with(".json") || name.ends_with(".yaml") || name.ends_with(".yml"); }

// The files that make up the configuration, in order.
std::vector<std::string> FilesOf(const std::string& config) {
  struct stat info {};
  if (::stat(config.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return {config};
  std::vector<std::string> out;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(config.c_str()), ::closedir);
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
    if (EndsLikeConfig(entry->d_name) && out.size() < kProvidersMax) out.push_back(config + "/" + entry->d_name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::string StateOf(const std::vector<std::string>& files) {
  std::string out;
  for (const std::string& file : files) {
    struct stat info {};
    out += file;
    if (::stat(file.c_str(), &info) == 0) {
      out += " " + std::to_string(info.st_ino) + " " + std::to_string(info.st_size) + " " + std::to_string(info.st_mtim.tv_sec) + "." +
             std::to_string(info.st_mtim.tv_nsec);
    }
    out += "\n";
  }
  return out;
}

Status ReadInto(const std::vector<std::string>& files, const std::string& config, ProviderConfig& out) {
  if (files.empty()) return NotFoundError(config + " has no *.json, *.yaml or *.yml file");
  std::set<std::string> names;
  for (const std::string& file : files) {
    HR_ASSIGN_OR_RETURN(std::string text, ReadFile(file, kKeychainFileBytesMax));
    Result<ProviderConfig> parsed = ProviderConfig::Parse(text);
    if (!parsed.ok()) return parsed.status().Annotate(file);
    for (Provider& provider : parsed->providers) {
      if (!names.insert(provider.name).second) return InvalidArgumentError(file + ": the provider " + provider.name + " is in two files");
      out.providers.push_back(std::move(provider));
    }
    out.left_out.insert(out.left_out.end(), parsed->left_out.begin(), parsed->left_out.end());
  }
  if (out.providers.size() > kProvidersMax) return InvalidArgumentError(config + ": more than 100 providers");
  return OkStatus();
}

constexpr char kNeedsToken[] = "it has tokenAttributes, and only the kubelet can get a pod's service account token; what it gets comes here with PullImage "
                              "(keychain.cri_socket), or configure another source";

}  // namespace

KubeletProviders::KubeletProviders(std::string config, std::string programs, std::chrono::milliseconds timeout)
    : config_(std::move(config)), programs_(std::move(programs)), timeout_(timeout), answers_(kProgramPause) {}

std::shared_ptr<const ProviderConfig> KubeletProviders::Load(Status& error) {
  const std::vector<std::string> files = FilesOf(config_);
  const std::string state = StateOf(files);
  {
    MutexLock lock(mu_);
    if (loaded_ && state == loaded_state_) {
      error = error_;
      return loaded_;
    }
  }
  auto fresh = std::make_shared<ProviderConfig>();
  Status status = ReadInto(files, config_, *fresh);
  if (!status.ok()) *fresh = {};
  for (const Provider& one : fresh->left_out) log::Warn("a credential provider is not used file={} provider=\"{}\" why=\"{}\"", config_, one.name, kNeedsToken);
  MutexLock lock(mu_);
  loaded_state_ = state;
  loaded_ = fresh;
  error_ = status;
  error = std::move(status);
  return fresh;
}

Status KubeletProviders::Check() {
  Status error;
  const auto config = Load(error);
  HR_RETURN_IF_ERROR(error);
  for (const Provider& provider : config->providers) {
    const std::string path = programs_ + "/" + provider.name;
    if (::access(path.c_str(), X_OK) != 0) {
      return Status::FromErrno(errno, path + " (the program of the provider " + provider.name + " of " + config_ +
                                          "; keychain.credential_provider_bin_dir must name the directory that has it)");
    }
  }
  return OkStatus();
}

Result<ProgramAnswer> KubeletProviders::Run(const Provider& provider, const std::string& image, const StopSignal& stop) {
  HR_ASSIGN_OR_RETURN(ProgramResult result, RunProgram({.path = programs_ + "/" + provider.name,
                                                        .arguments = provider.arguments,
                                                        .environment = provider.environment,
                                                        .input = ProviderRequest(provider, image),
                                                        .timeout = timeout_,
                                                        .output_max = kProgramOutputBytesMax},
                                                       stop));
  if (result.exit_code != 0) {
    return UnavailableError("ended with exit code " + std::to_string(result.exit_code) + "; run it by hand to see why");
  }
  return ParseProviderResponse(provider, image, result.output);
}

CredentialAnswer KubeletProviders::Find(const CredentialQuery& query, const StopSignal& stop) {
  Status error;
  const std::shared_ptr<const ProviderConfig> config = Load(error);
  if (!error.ok()) return {std::nullopt, "kubelet credential providers: " + error.message()};
  const std::string image = DockerConfig::NormaliseHost(query.host) + "/" + query.repository;
  CredentialAnswer none;
  const auto matches = [&](const Provider& provider) {
    return std::any_of(provider.match_images.begin(), provider.match_images.end(),
                       [&](const std::string& pattern) { return ImageMatches(pattern, image); });
  };
  for (const Provider& provider : config->providers) {
    if (!matches(provider)) continue;
    auto pick = [&](const ProgramAnswer& answer) -> std::optional<Credentials> {
      for (Credentials& credentials : CredentialsFor(answer, image)) {
        if (!query.Refused(credentials)) return std::move(credentials);
      }
      return std::nullopt;
    };
    auto found = answers_.Get(ProviderCacheKeys(provider, image), pick, [&] { return Run(provider, image, stop); });
    if (found.ok() && *found) return {std::move(*found), ""};
    none.temporary = none.temporary || !found.ok();
    none.why_none += (none.why_none.empty() ? "" : "; ") + ("the credential provider " + provider.name) + " (" + config_ + ") " +
                     (found.ok() ? "has no credentials for this image, or they were refused" : "failed: " + found.status().message());
  }
  for (const Provider& provider : config->left_out) {
    if (!matches(provider)) continue;
    none.why_none += (none.why_none.empty() ? "" : "; ") + ("the credential provider " + provider.name) + " (" + config_ + ") is not used: " + kNeedsToken;
  }
  return none;
}

}  // namespace headrace::registry
