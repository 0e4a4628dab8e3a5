#include "fusefs/registry/provider_config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "fusefs/base/text.h"
#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/image_match.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

using Json = nlohmann::json;

constexpr char kResponseGroup[] = "credentialprovider.kubelet.k8s.io/";
constexpr char kConfigGroup[] = "kubelet.config.k8s.io/";
constexpr int kYamlDepthMax = 20;

bool IsVersionOf(std::string_view text, std::string_view group) {
  if (!text.starts_with(group)) return false;
  text.remove_prefix(group.size());
  return text == "v1" || text == "v1beta1" || text == "v1alpha1";
}

// yaml-cpp recurses over nesting: what is nested more deeply than any such file must not get there.
Status CheckDepth(std::string_view text) {
  int depth = 0;
  for (char c : text) {
    depth += c == '{' || c == '[' ? 1 : (c == '}' || c == ']') && depth > 0 ? -1 : 0;
    if (depth > kYamlDepthMax) return InvalidArgumentError("is nested too deeply");
  }
  for (std::string_view line : Split(text, '\n')) {
    const size_t dashes = std::min(line.find_first_not_of("- ?:\t\r"), line.size());
    if (dashes > 200) return InvalidArgumentError("is indented too deeply");
  }
  return OkStatus();
}

Result<std::string> Scalar(const YAML::Node& node, const std::string& where) {
  if (!node.IsDefined() || node.IsNull()) return InvalidArgumentError(where + " is missing");
  if (!node.IsScalar()) return InvalidArgumentError(where + " must be a string");
  return node.Scalar();
}

Result<std::vector<std::string>> Texts(const YAML::Node& node, const std::string& where) {
  std::vector<std::string> out;
  if (!node.IsDefined() || node.IsNull()) return out;
  if (!node.IsSequence() || node.size() > kMatchesMax) return InvalidArgumentError(where + " must be a list of strings");
  for (size_t i = 0; i < node.size(); ++i) {
    HR_ASSIGN_OR_RETURN(std::string text, Scalar(node[i], where + "[" + std::to_string(i) + "]"));
    out.push_back(std::move(text));
  }
  return out;
}

// As the kubelet: it becomes a path below the directory of programs.
Status CheckName(const std::string& name, const std::string& where) {
  if (name.empty() || name == "." || name == ".." || name.size() > 255 ||
      name.find_first_of(std::string_view("/\\ \t\n\0", 6)) != std::string::npos) {
    return InvalidArgumentError(where + ".name must be the name of a program file, without '/' or spaces");
  }
  return OkStatus();
}

Status ParseEnvironment(const YAML::Node& node, const std::string& where, std::vector<std::string>& out) {
  if (!node.IsDefined() || node.IsNull()) return OkStatus();
  if (!node.IsSequence() || node.size() > kMatchesMax) return InvalidArgumentError(where + " must be a list of {name, value}");
  for (size_t i = 0; i < node.size(); ++i) {
    const std::string at = where + "[" + std::to_string(i) + "]";
    if (!node[i].IsMap()) return InvalidArgumentError(at + " must have name and value");
    HR_ASSIGN_OR_RETURN(std::string name, Scalar(node[i]["name"], at + ".name"));
    HR_ASSIGN_OR_RETURN(std::string value, Scalar(node[i]["value"], at + ".value"));
    if (name.empty() || name.find('=') != std::string::npos) return InvalidArgumentError(at + ".name is not the name of a variable");
    out.push_back(name + "=" + value);
  }
  return OkStatus();
}

Result<Provider> ParseProvider(const YAML::Node& node, const std::string& where) {
  if (!node.IsMap()) return InvalidArgumentError(where + " must be a map");
  Provider out;
  HR_ASSIGN_OR_RETURN(out.name, Scalar(node["name"], where + ".name"));
  HR_RETURN_IF_ERROR(CheckName(out.name, where));
  HR_ASSIGN_OR_RETURN(out.api_version, Scalar(node["apiVersion"], where + ".apiVersion"));
  if (!IsVersionOf(out.api_version, kResponseGroup)) {
    return InvalidArgumentError(where + ".apiVersion must be " + kResponseGroup + "v1 (or v1beta1, v1alpha1)");
  }
  HR_ASSIGN_OR_RETURN(out.match_images, Texts(node["matchImages"], where + ".matchImages"));
  if (out.match_images.empty()) return InvalidArgumentError(where + ".matchImages must have a pattern (\"registry.example.com\")");
  for (size_t i = 0; i < out.match_images.size(); ++i) {
    HR_RETURN_IF_ERROR(CheckImagePattern(out.match_images[i]).Annotate(where + ".matchImages[" + std::to_string(i) + "]"));
  }
  HR_ASSIGN_OR_RETURN(std::string duration, Scalar(node["defaultCacheDuration"], where + ".defaultCacheDuration"));
  Result<std::chrono::seconds> parsed = ParseGoDuration(duration);
  if (!parsed.ok()) return parsed.status().Annotate(where + ".defaultCacheDuration");
  out.default_cache_duration = std::min<std::chrono::seconds>(*parsed, kCacheDurationMax);
  HR_ASSIGN_OR_RETURN(out.arguments, Texts(node["args"], where + ".args"));
  HR_RETURN_IF_ERROR(ParseEnvironment(node["env"], where + ".env", out.environment));
  return out;
}

Result<ProviderConfig> FromYaml(const YAML::Node& root) {
  if (!root.IsMap()) return InvalidArgumentError("is not a CredentialProviderConfig (kind, apiVersion, providers)");
  HR_ASSIGN_OR_RETURN(std::string kind, Scalar(root["kind"], "kind"));
  if (kind != "CredentialProviderConfig") return InvalidArgumentError("kind must be CredentialProviderConfig");
  HR_ASSIGN_OR_RETURN(std::string version, Scalar(root["apiVersion"], "apiVersion"));
  if (!IsVersionOf(version, kConfigGroup)) {
    return InvalidArgumentError(std::string("apiVersion must be ") + kConfigGroup + "v1 (or v1beta1, v1alpha1)");
  }
  const YAML::Node providers = root["providers"];
  if (!providers.IsDefined() || !providers.IsSequence() || providers.size() == 0 || providers.size() > kProvidersMax) {
    return InvalidArgumentError("providers must be a list of 1 to 100 providers");
  }
  ProviderConfig out;
  std::set<std::string> names;
  for (size_t i = 0; i < providers.size(); ++i) {
    const std::string where = "providers[" + std::to_string(i) + "]";
    HR_ASSIGN_OR_RETURN(Provider provider, ParseProvider(providers[i], where));
    if (!names.insert(provider.name).second) return InvalidArgumentError(where + ".name is the name of an earlier provider");
    const YAML::Node tokens = providers[i]["tokenAttributes"];
    if (tokens.IsDefined() && !tokens.IsNull()) {
      out.left_out.push_back(std::move(provider));
    } else {
      out.providers.push_back(std::move(provider));
    }
  }
  return out;
}

// "host[:port]" of "host/repository".
std::string RegistryOf(const std::string& image) { return image.substr(0, image.find('/')); }

// As the kubelet's key ring: a scheme and "/v1/", "/v2/" in front of the path do not count.
std::string PatternOfKey(std::string_view key) {
  for (std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) key.remove_prefix(scheme.size());
  }
  const size_t slash = key.find('/');
  std::string host(key.substr(0, slash));
  std::string path(slash == std::string_view::npos ? "" : key.substr(slash));
  if (path.starts_with("/v1/") || path.starts_with("/v2/")) path = path.substr(3);
  return path == "/" ? host : host + path;
}

}  // namespace

Result<std::chrono::seconds> ParseGoDuration(std::string_view text) {
  const auto bad = [] { return InvalidArgumentError("must be a duration as \"12h\", \"1h30m\" or \"90s\", not negative"); };
  if (text == "0") return std::chrono::seconds(0);
  if (text.empty() || text.size() > 64) return bad();
  double seconds = 0;
  while (!text.empty()) {
    size_t digits = 0;
    int dots = 0;
    while (digits < text.size() && ((text[digits] >= '0' && text[digits] <= '9') || text[digits] == '.')) dots += text[digits++] == '.';
    if (digits == 0 || digits > 18 || dots > 1 || static_cast<size_t>(dots) == digits) return bad();
    const double number = std::strtod(std::string(text.substr(0, digits)).c_str(), nullptr);
    text.remove_prefix(digits);
    static constexpr std::pair<std::string_view, double> kUnits[] = {{"ns", 1e-9}, {"us", 1e-6}, {"\xc2\xb5s", 1e-6}, {"ms", 1e-3},
                                                                     {"s", 1},     {"m", 60},    {"h", 3600}};
    const auto* unit = std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& u) { return text.starts_with(u.first); });
    if (unit == std::end(kUnits)) return bad();
    text.remove_prefix(unit->first.size());
    seconds += number * unit->second;
  }
  if (seconds > 9.2e9) return bad();  // Go's limit: 292 years
  return std::chrono::seconds(static_cast<int64_t>(seconds));
}

Result<ProviderConfig> ProviderConfig::Parse(std::string_view yaml_or_json) {
  HR_RETURN_IF_ERROR(CheckDepth(yaml_or_json));
  try {
    return FromYaml(YAML::Load(std::string(yaml_or_json)));
  } catch (const YAML::Exception& e) {
    return InvalidArgumentError("line " + std::to_string(e.mark.line + 1) + " is not valid YAML");  // what() may quote values
  }
}

std::string ProviderRequest(const Provider& provider, const std::string& image) {
  return Json{{"kind", "CredentialProviderRequest"}, {"apiVersion", provider.api_version}, {"image", image}}.dump();
}

std::vector<std::string> ProviderCacheKeys(const Provider& provider, const std::string& image) {
  return {provider.name + "\nimage\n" + image, provider.name + "\nregistry\n" + RegistryOf(image), provider.name + "\nglobal"};
}

Result<ProgramAnswer> ParseProviderResponse(const Provider& provider, const std::string& image, const std::string& output) {
  const Json root = Json::parse(output, nullptr, false);
  if (!root.is_object()) return InvalidArgumentError("printed something that is not a JSON object");
  if (root.value("kind", Json()) != "CredentialProviderResponse") return InvalidArgumentError("printed no CredentialProviderResponse");
  if (root.value("apiVersion", Json()) != provider.api_version) {
    return InvalidArgumentError("answered in another apiVersion than " + provider.api_version);
  }
  ProgramAnswer out;
  const std::vector<std::string> keys = ProviderCacheKeys(provider, image);
  const Json type = root.value("cacheKeyType", Json());
  if (type == "Image") out.key = keys[0];
  else if (type == "Registry") out.key = keys[1];
  else if (type == "Global") out.key = keys[2];
  else return InvalidArgumentError("answered without a cacheKeyType that is Image, Registry or Global");
  out.lifetime = provider.default_cache_duration;
  if (const Json duration = root.value("cacheDuration", Json()); !duration.is_null()) {
    Result<std::chrono::seconds> parsed = duration.is_string() ? ParseGoDuration(duration.get<std::string>())
                                                               : Result<std::chrono::seconds>(InvalidArgumentError("must be a string"));
    if (!parsed.ok()) return parsed.status().Annotate("its cacheDuration");
    out.lifetime = std::min<std::chrono::seconds>(*parsed, kCacheDurationMax);
  }
  const Json auth = root.value("auth", Json());
  if (auth.is_null()) return out;
  if (!auth.is_object() || auth.size() > kMatchesMax) return InvalidArgumentError("answered with an \"auth\" that is not a map");
  for (const auto& [pattern, entry] : auth.items()) {
    const Json user = entry.is_object() ? entry.value("username", Json()) : Json();
    const Json password = entry.is_object() ? entry.value("password", Json()) : Json();
    if (!user.is_string() || !password.is_string() || user.get_ref<const std::string&>().size() > kSecretBytesMax ||
        password.get_ref<const std::string&>().size() > kSecretBytesMax) {
      return InvalidArgumentError("answered with an entry of \"auth\" without username and password");
    }
    if (user.get_ref<const std::string&>().empty()) continue;  // the kubelet takes it as "pull without credentials"
    out.credentials.push_back({PatternOfKey(pattern), {user.get<std::string>(), password.get<std::string>(), ""}});
  }
  std::sort(out.credentials.begin(), out.credentials.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  return out;
}

std::vector<Credentials> CredentialsFor(const ProgramAnswer& answer, const std::string& image) {
  std::vector<Credentials> out;
  for (const auto& [pattern, credentials] : answer.credentials) {
    if (ImageMatches(pattern, image)) out.push_back(credentials);
  }
  if (!out.empty() || DockerConfig::NormaliseHost(RegistryOf(image)) != "docker.io") return out;
  for (const auto& [pattern, credentials] : answer.credentials) {
    if (pattern.substr(0, pattern.find('/')) == "index.docker.io") out.push_back(credentials);
  }
  return out;
}

}  // namespace headrace::registry
