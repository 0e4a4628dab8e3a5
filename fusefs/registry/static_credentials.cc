#include "fusefs/registry/static_credentials.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "fusefs/base/file.h"
#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/image_match.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

using Json = nlohmann::json;

// A secret that others can read is none: said, not used.
Result<std::string> ReadSecretFile(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return Status::FromErrno(errno, path);
  if ((info.st_mode & 077) != 0) {
    return PermissionDeniedError(path + " can be read or written by others than its owner: chmod 600 " + path);
  }
  return ReadFile(path, kKeychainFileBytesMax);
}

Status FillFrom(const std::string& path, std::string& out) {
  if (path.empty()) return OkStatus();
  HR_ASSIGN_OR_RETURN(out, ReadSecretFile(path));
  while (!out.empty() && (out.back() == '\n' || out.back() == '\r')) out.pop_back();
  if (out.empty() || out.size() > kSecretBytesMax) return InvalidArgumentError(path + " is empty or larger than 64 KiB");
  return OkStatus();
}

Result<StaticEntry> ParseEntry(const Json& entry, const std::string& where) {
  if (!entry.is_object()) return InvalidArgumentError(where + " must be an object");
  StaticEntry out;
  for (const auto& [key, value] : entry.items()) {
    std::string* field = key == "match"                 ? &out.match
                         : key == "username"            ? &out.credentials.username
                         : key == "password"            ? &out.credentials.password
                         : key == "identity_token"      ? &out.credentials.identity_token
                         : key == "password_file"       ? &out.password_file
                         : key == "identity_token_file" ? &out.identity_token_file
                                                        : nullptr;
    if (field == nullptr) {
      return InvalidArgumentError(where + " has a key that is not match, username, password, password_file, identity_token or identity_token_file");
    }
    if (!value.is_string() || value.get_ref<const std::string&>().size() > kSecretBytesMax) {
      return InvalidArgumentError(where + "." + key + " must be a string");
    }
    *field = value.get<std::string>();
  }
  HR_RETURN_IF_ERROR(CheckImagePattern(out.match).Annotate(where + ".match"));
  const bool password = !out.credentials.password.empty() || !out.password_file.empty();
  const bool token = !out.credentials.identity_token.empty() || !out.identity_token_file.empty();
  if (password == token || password != !out.credentials.username.empty()) {
    return InvalidArgumentError(where + " must have either username and password (or password_file), or identity_token (or identity_token_file)");
  }
  for (const std::string* path : {&out.password_file, &out.identity_token_file}) {
    if (!path->empty() && path->front() != '/') return InvalidArgumentError(where + ": *_file must be an absolute path");
  }
  return out;
}

Result<std::vector<StaticEntry>> Load(const std::string& path) {
  HR_ASSIGN_OR_RETURN(std::string text, ReadSecretFile(path));
  Result<std::vector<StaticEntry>> parsed = ParseStaticCredentials(text);
  if (!parsed.ok()) return parsed.status().Annotate(path);
  return parsed;
}

}  // namespace

Result<std::vector<StaticEntry>> ParseStaticCredentials(std::string_view json) {
  const Json root = Json::parse(json, nullptr, false);
  if (!root.is_object() || root.size() != 1 || !root.contains("credentials") || !root["credentials"].is_array()) {
    return InvalidArgumentError("must be {\"credentials\": [...]} in JSON");
  }
  const Json& list = root["credentials"];
  if (list.size() > kMatchesMax) return InvalidArgumentError("has more than 1000 entries");
  std::vector<StaticEntry> out;
  for (size_t i = 0; i < list.size(); ++i) {
    HR_ASSIGN_OR_RETURN(StaticEntry entry, ParseEntry(list[i], "credentials[" + std::to_string(i) + "]"));
    out.push_back(std::move(entry));
  }
  return out;
}

Status StaticCredentials::Check() const { return Load(path_).status(); }

CredentialAnswer StaticCredentials::Find(const CredentialQuery& query, const StopSignal&) {
  Result<std::vector<StaticEntry>> entries = Load(path_);
  if (!entries.ok()) return {std::nullopt, "keychain.credentials_file: " + entries.status().message()};
  const std::string image = DockerConfig::NormaliseHost(query.host) + "/" + query.repository;
  CredentialAnswer none;
  for (StaticEntry& entry : *entries) {
    if (!ImageMatches(entry.match, image)) continue;
    Status filled = FillFrom(entry.password_file, entry.credentials.password);
    if (filled.ok()) filled = FillFrom(entry.identity_token_file, entry.credentials.identity_token);
    if (!filled.ok()) {
      none.why_none = "keychain.credentials_file " + path_ + ": " + filled.message();
    } else if (query.Refused(entry.credentials)) {
      none.why_none = "the credentials of " + path_ + " (keychain.credentials_file) were refused";
    } else {
      return {std::move(entry.credentials), ""};
    }
  }
  if (none.why_none.empty()) none.why_none = "no entry of " + path_ + " (keychain.credentials_file) matches";
  return none;
}

}  // namespace headrace::registry
