#include "fusefs/registry/docker_config.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

using Json = nlohmann::json;

std::string StringField(const Json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// "" if the entry is fine. An entry without anything in it (docker writes those beside a credsStore) leaves `out` empty.
std::string ParseEntry(const Json& entry, Credentials& out) {
  if (!entry.is_object()) return "the entry is not an object";
  out.username = StringField(entry, "username");
  out.password = StringField(entry, "password");
  out.identity_token = StringField(entry, "identitytoken");
  std::string auth = StringField(entry, "auth");
  if (!auth.empty()) {
    Result<std::string> plain = Base64Decode(auth);
    size_t colon = plain.ok() ? plain->find(':') : std::string::npos;
    if (colon == std::string::npos) return "\"auth\" is not the base64 of user:password";
    out.username = plain->substr(0, colon);
    out.password = plain->substr(colon + 1);
    while (!out.password.empty() && out.password.back() == '\0') out.password.pop_back();
  }
  if (!StringField(entry, "registrytoken").empty() && out.password.empty() && out.identity_token.empty()) {
    return "\"registrytoken\" is not supported";
  }
  return "";
}

// How long a helper's answer is used without asking again; a refusal asks at once.
constexpr std::chrono::seconds kHelperLifetime{60};

// What may stand behind "docker-credential-": never a path.
bool IsHelperName(std::string_view name) {
  return !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

}  // namespace

std::string DockerConfig::NormaliseHost(std::string_view key) {
  for (std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) key.remove_prefix(scheme.size());
  }
  std::string host(key.substr(0, key.find('/')));
  for (char& c : host) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return host == "index.docker.io" || host == "registry-1.docker.io" ? "docker.io" : host;
}

Result<DockerConfig> DockerConfig::Parse(std::string_view json) {
  if (json.size() > kDockerConfigBytesMax) return InvalidArgumentError("larger than 1 MiB");
  Json root = Json::parse(json, nullptr, false);
  if (!root.is_object()) return InvalidArgumentError("not a JSON object; mend it, or move it away and log in again (docker login)");
  for (const char* map : {"auths", "credHelpers"}) {
    auto found = root.find(map);
    if (found != root.end() && !found->is_object() && !found->is_null()) {
      return InvalidArgumentError("\"" + std::string(map) + "\" must be an object with the names of registries as keys");
    }
  }
  if (auto store = root.find("credsStore"); store != root.end() && !store->is_string() && !store->is_null()) {
    return InvalidArgumentError("\"credsStore\" is not the name of a program (docker-credential-NAME)");
  }
  DockerConfig config;
  auto auths = root.find("auths");
  if (auths != root.end() && auths->is_object()) {
    for (const auto& [key, entry] : auths->items()) {
      const std::string host = NormaliseHost(key);
      Credentials credentials;
      std::string problem = ParseEntry(entry, credentials);
      if (!problem.empty()) {
        config.broken.emplace(host, problem);
      } else if (!(credentials == Credentials{})) {
        bool exact = key == host;  // "host" is preferred to "https://host/v1/"
        if (exact) config.auths[host] = std::move(credentials);
        else config.auths.emplace(host, std::move(credentials));
      }
    }
  }
  auto helpers = root.find("credHelpers");
  if (helpers != root.end() && helpers->is_object()) {
    for (const auto& [key, helper] : helpers->items()) {
      if (helper.is_string() && helper.get<std::string>().empty()) continue;
      if (helper.is_string() && IsHelperName(helper.get<std::string>())) {
        config.helpers[NormaliseHost(key)] = helper.get<std::string>();
      } else {
        config.broken[NormaliseHost(key)] = "its entry under \"credHelpers\" is not the name of a program (docker-credential-NAME)";
      }
    }
  }
  config.default_helper = StringField(root, "credsStore");
  if (!config.default_helper.empty() && !IsHelperName(config.default_helper)) {
    return InvalidArgumentError("\"credsStore\" is not the name of a program (docker-credential-NAME)");
  }
  return config;
}

std::string HelperServer(const std::string& normalised_host) {
  return normalised_host == "docker.io" ? "https://index.docker.io/v1/" : normalised_host;
}

Result<Credentials> ParseHelperOutput(const ProgramResult& result) {
  if (result.exit_code != 0) {
    // The protocol's only way to say so; the text is the one of the helpers library.
    if (result.output.find("credentials not found") != std::string::npos) return NotFoundError("has no credentials for this host");
    return UnavailableError("ended with exit code " + std::to_string(result.exit_code));
  }
  Json root = Json::parse(result.output, nullptr, false);
  if (!root.is_object()) return InvalidArgumentError("printed something that is not a JSON object");
  Credentials out;
  const std::string user = StringField(root, "Username");
  const std::string secret = StringField(root, "Secret");
  if (user.empty() && secret.empty()) return NotFoundError("has no credentials for this host");
  if (secret.empty() || secret.size() > kSecretBytesMax || user.size() > kSecretBytesMax) {
    return InvalidArgumentError("printed no usable \"Username\" and \"Secret\"");
  }
  if (user == "<token>") {
    out.identity_token = secret;
  } else {
    out.username = user;
    out.password = secret;
  }
  return out;
}

CredentialStore::CredentialStore(std::string path, std::chrono::milliseconds program_timeout)
    : path_(std::move(path)), program_timeout_(program_timeout), answers_(kProgramPause) {}

void CredentialStore::ReloadIfChanged() {
  struct stat info{};
  FileState now;
  if (::stat(path_.c_str(), &info) == 0) {
    now = {info.st_size, info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec, info.st_ino};
  }
  if (now == loaded_ && now.size >= 0) return;
  loaded_ = now;
  config_ = {};
  load_error_ = {};
  if (now.size < 0) return;  // no file is as good as an empty one
  Result<std::string> text = ReadFile(path_, kDockerConfigBytesMax);
  Result<DockerConfig> parsed = text.ok() ? DockerConfig::Parse(*text) : Result<DockerConfig>(text.status());
  if (parsed.ok()) {
    config_ = std::move(*parsed);
  } else {
    load_error_ = parsed.status();
  }
}

CredentialStore::Lookup CredentialStore::LookUp(const std::string& key) {
  Lookup out;
  MutexLock lock(mu_);
  ReloadIfChanged();
  if (!load_error_.ok()) {
    out.problem = path_ + " could not be used: " + load_error_.message();
    return out;
  }
  if (auto helper = config_.helpers.find(key); helper != config_.helpers.end()) out.helpers.push_back(helper->second);
  if (!config_.default_helper.empty()) out.helpers.push_back(config_.default_helper);
  if (auto found = config_.auths.find(key); found != config_.auths.end()) {
    out.credentials = found->second;
  } else if (auto broken = config_.broken.find(key); broken != config_.broken.end()) {
    out.problem = "the credentials for this host in " + path_ + " could not be used: " + broken->second;
  }
  return out;
}

std::optional<Credentials> CredentialStore::AskHelper(const std::string& name, const std::string& key, const CredentialQuery& query,
                                                      const StopSignal& stop, CredentialAnswer& reasons) {
  auto pick = [&](const ProgramAnswer& answer) -> std::optional<Credentials> {
    if (answer.credentials.empty() || query.Refused(answer.credentials.front().second)) return std::nullopt;
    return answer.credentials.front().second;
  };
  const std::string cache_key = name + "\n" + key;
  Result<std::optional<Credentials>> found = answers_.Get({cache_key}, pick, [&]() -> Result<ProgramAnswer> {
    HR_ASSIGN_OR_RETURN(std::string path, FindProgram("docker-credential-" + name));
    HR_ASSIGN_OR_RETURN(ProgramResult result, RunProgram({.path = path,
                                                          .arguments = {"get"},
                                                          .environment = {},
                                                          .input = HelperServer(key) + "\n",
                                                          .timeout = program_timeout_,
                                                          .output_max = kProgramOutputBytesMax},
                                                         stop));
    Result<Credentials> parsed = ParseHelperOutput(result);
    if (!parsed.ok()) return parsed.status();
    return ProgramAnswer{{{"", *parsed}}, cache_key, kHelperLifetime};
  });
  if (found.ok() && *found) return **found;
  const bool hung = !found.ok() && found.status().code() != StatusCode::kNotFound;
  reasons.temporary = reasons.temporary || hung;
  reasons.why_none += (reasons.why_none.empty() ? "" : "; ") + ("the credential helper docker-credential-" + name) + " (named by " + path_ + "): " +
                      (found.ok() ? "its credentials were refused" : found.status().message());
  return std::nullopt;
}

CredentialAnswer CredentialStore::Find(const CredentialQuery& query, const StopSignal& stop) {
  if (path_.empty()) return {std::nullopt, "no credentials are configured (no docker config.json is set)"};
  const std::string key = DockerConfig::NormaliseHost(query.host);
  const Lookup lookup = LookUp(key);
  CredentialAnswer none;
  for (const std::string& name : lookup.helpers) {
    if (auto found = AskHelper(name, key, query, stop, none)) return {std::move(found), ""};
  }
  if (lookup.credentials && !query.Refused(*lookup.credentials)) return {lookup.credentials, ""};
  std::string problem = lookup.problem;
  if (lookup.credentials) {
    problem = "the configured credentials were refused (" + path_ + "); log in again (docker login " + key.substr(0, 256) + ")";
  } else if (problem.empty() && lookup.helpers.empty()) {
    problem = "no credentials for this host in " + path_ + "; log in (docker login " + key.substr(0, 256) + ") or put them there";
  }
  if (!problem.empty()) none.why_none += (none.why_none.empty() ? "" : "; ") + problem;
  return none;
}

}  // namespace headrace::registry
