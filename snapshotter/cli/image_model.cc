#include "snapshotter/cli/image_model.h"

#include <sys/utsname.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "fusefs/base/text.h"

namespace headrace::cli {
namespace {

using nlohmann::json;

constexpr int kDepthMax = 64;       // of nested arrays and objects; real documents have about 5
constexpr size_t kHistoryNameMax = 512;

// nlohmann parses iteratively but prints recursively, so depth is bounded before either.
Status CheckDepth(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDepthMax) return ResourceExhaustedError("JSON nested deeper than 64");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return {};
}

Result<json> ParseObject(std::string_view text, uint64_t limit, std::string_view what) {
  if (text.size() > limit) {
    return ResourceExhaustedError(std::string(what) + " larger than " + HumanBytes(limit));
  }
  if (Status s = CheckDepth(text); !s.ok()) return s.Annotate(what);
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return InvalidArgumentError(std::string(what) + " is not a JSON object");
  return parsed;
}

// Runs `body`, which uses nlohmann's throwing accessors, and turns what they throw into a Status.
template <typename Body>
auto Guard(std::string_view what, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const json::exception& e) {
    return InvalidArgumentError(std::string(what) + " is malformed: " + e.what());
  }
}

std::map<std::string, std::string> StringMap(const json& object, const char* key) {
  auto it = object.find(key);
  if (it == object.end() || it->is_null()) return {};
  return it->get<std::map<std::string, std::string>>();
}

Result<Descriptor> ReadDescriptor(const json& j) {
  Descriptor d;
  d.media_type = j.value("mediaType", "");
  HR_ASSIGN_OR_RETURN(d.digest, Digest::Parse(j.at("digest").get<std::string>()));
  const json& size = j.at("size");
  if (!size.is_number_integer() || (!size.is_number_unsigned() && size.get<int64_t>() < 0)) {
    return InvalidArgumentError("descriptor " + d.digest.ToString() + ": size is not a natural number");
  }
  d.size = size.get<uint64_t>();
  if (d.size > uint64_t{1} << 62) return InvalidArgumentError("descriptor " + d.digest.ToString() + ": absurd size");
  d.annotations = StringMap(j, "annotations");
  if (auto p = j.find("platform"); p != j.end() && p->is_object()) {
    d.platform = Platform{p->value("os", ""), p->value("architecture", ""), p->value("variant", "")};
  }
  auto urls = j.find("urls");
  d.has_urls = urls != j.end() && urls->is_array() && !urls->empty();
  return d;
}

json WriteDescriptor(const Descriptor& d) {
  json j = {{"mediaType", d.media_type}, {"digest", d.digest.ToString()}, {"size", d.size}};
  if (!d.annotations.empty()) j["annotations"] = d.annotations;
  if (d.platform) {
    j["platform"] = {{"os", d.platform->os}, {"architecture", d.platform->architecture}};
    if (!d.platform->variant.empty()) j["platform"]["variant"] = d.platform->variant;
  }
  return j;
}

// File names in history need not be UTF-8; JSON must be.
std::string Dump(const json& j, int indent = -1) { return j.dump(indent, ' ', false, json::error_handler_t::replace); }

// Writes `d` over an existing descriptor and keeps the fields of it that this program does not know.
void UpdateDescriptor(json& target, const Descriptor& d) {
  target["mediaType"] = d.media_type;
  target["digest"] = d.digest.ToString();
  target["size"] = d.size;
  if (d.annotations.empty()) {
    target.erase("annotations");
  } else {
    target["annotations"] = d.annotations;
  }
}

Result<std::string> ReplaceList(std::string_view body, const char* key, std::string_view media_type,
                                const std::vector<Descriptor>& list) {
  HR_ASSIGN_OR_RETURN(json document, ParseObject(body, kDocumentBytesMax, "manifest"));
  return Guard("manifest", [&]() -> Result<std::string> {
    json& items = document.at(key);
    if (!items.is_array() || items.size() != list.size()) return InternalError("manifest: list of another length");
    for (size_t i = 0; i < list.size(); ++i) UpdateDescriptor(items[i], list[i]);
    document["mediaType"] = media_type;
    if (auto config = document.find("config"); config != document.end()) {
      if (config->value("mediaType", "") == kDockerConfig) (*config)["mediaType"] = kOciConfig;
    }
    return Dump(document);
  });
}

bool IsLayerMediaType(std::string_view type) {
  return type.starts_with("application/vnd.oci.image.layer.") ||
         type.starts_with("application/vnd.docker.image.rootfs.");
}

}  // namespace

Result<Platform> Platform::Parse(std::string_view text) {
  const std::vector<std::string_view> parts = Split(text, '/');
  const bool empty_part = std::any_of(parts.begin(), parts.end(), [](auto p) { return p.empty(); });
  if (parts.size() < 2 || parts.size() > 3 || empty_part) {
    return InvalidArgumentError("platform '" + std::string(text) + "': write os/architecture[/variant], as linux/amd64");
  }
  return Platform{std::string(parts[0]), std::string(parts[1]), parts.size() == 3 ? std::string(parts[2]) : ""};
}

Platform Platform::Host() {
  struct utsname name;
  if (::uname(&name) != 0) return {"linux", "amd64", ""};
  const std::string_view machine = name.machine;
  if (machine == "x86_64") return {"linux", "amd64", ""};
  if (machine == "aarch64") return {"linux", "arm64", "v8"};
  if (machine == "armv7l") return {"linux", "arm", "v7"};
  return {"linux", std::string(machine), ""};  // ppc64le, riscv64, s390x: Go's names are the kernel's
}

std::string Platform::ToString() const { return os + "/" + architecture + (variant.empty() ? "" : "/" + variant); }

bool Platform::Satisfies(const Platform& wanted) const {
  return os == wanted.os && architecture == wanted.architecture &&
         (variant.empty() || wanted.variant.empty() || variant == wanted.variant);
}

Result<DocumentKind> KindOf(std::string_view body, std::string_view media_type) {
  HR_ASSIGN_OR_RETURN(const json document, ParseObject(body, kDocumentBytesMax, "manifest"));
  return Guard("manifest", [&]() -> Result<DocumentKind> {
    if (document.value("schemaVersion", 0) == 1) {
      return UnimplementedError("the image has a docker schema 1 manifest, which nobody writes any more; "
                                "push it again with a current tool first");
    }
    const std::string type = document.value("mediaType", std::string(media_type));
    if (type == kOciIndex || type == kDockerIndex || document.contains("manifests")) return DocumentKind::kIndex;
    if (!document.contains("layers") || !document.contains("config")) return DocumentKind::kOther;
    const std::string config = document["config"].value("mediaType", "");
    if (config != kOciConfig && config != kDockerConfig) return DocumentKind::kOther;
    for (const json& layer : document["layers"]) {
      if (!IsLayerMediaType(layer.value("mediaType", ""))) return DocumentKind::kOther;
    }
    return DocumentKind::kImage;
  });
}

Result<Manifest> ParseManifest(std::string_view body) {
  HR_ASSIGN_OR_RETURN(const json document, ParseObject(body, kDocumentBytesMax, "manifest"));
  return Guard("manifest", [&]() -> Result<Manifest> {
    Manifest m;
    m.media_type = document.value("mediaType", std::string(kOciManifest));
    HR_ASSIGN_OR_RETURN(m.config, ReadDescriptor(document.at("config")));
    const json& layers = document.at("layers");
    if (!layers.is_array()) return InvalidArgumentError("manifest: layers is not a list");
    if (layers.size() > kLayersMax) return ResourceExhaustedError("manifest with more than 1024 layers");
    for (const json& layer : layers) {
      HR_ASSIGN_OR_RETURN(Descriptor d, ReadDescriptor(layer));
      m.layers.push_back(std::move(d));
    }
    m.annotations = StringMap(document, "annotations");
    return m;
  });
}

Result<Index> ParseIndex(std::string_view body) {
  HR_ASSIGN_OR_RETURN(const json document, ParseObject(body, kDocumentBytesMax, "index"));
  return Guard("index", [&]() -> Result<Index> {
    Index index;
    index.media_type = document.value("mediaType", std::string(kOciIndex));
    const json& manifests = document.at("manifests");
    if (!manifests.is_array()) return InvalidArgumentError("index: manifests is not a list");
    if (manifests.size() > kIndexEntriesMax) return ResourceExhaustedError("index with more than 1024 entries");
    for (const json& entry : manifests) {
      HR_ASSIGN_OR_RETURN(Descriptor d, ReadDescriptor(entry));
      index.manifests.push_back(std::move(d));
    }
    return index;
  });
}

Result<ImageConfig> ParseConfig(std::string_view body) {
  HR_ASSIGN_OR_RETURN(const json document, ParseObject(body, kConfigBytesMax, "image config"));
  return Guard("image config", [&]() -> Result<ImageConfig> {
    ImageConfig config;
    config.platform = {document.value("os", ""), document.value("architecture", ""), document.value("variant", "")};
    auto rootfs = document.find("rootfs");
    if (rootfs == document.end() || !rootfs->is_object()) return InvalidArgumentError("image config without rootfs.diff_ids");
    auto ids = rootfs->find("diff_ids");
    if (ids == rootfs->end() || ids->is_null()) return config;  // an image without layers
    if (!ids->is_array()) return InvalidArgumentError("image config: rootfs.diff_ids is not a list");
    if (ids->size() > kLayersMax) return ResourceExhaustedError("image config with more than 1024 diff_ids");
    for (const json& id : *ids) {
      HR_ASSIGN_OR_RETURN(Digest digest, Digest::Parse(id.get<std::string>()));
      config.diff_ids.push_back(digest);
    }
    return config;
  });
}

std::string PrintConfig(const ConfigSpec& spec) {
  json config = json::object();
  if (!spec.entrypoint.empty()) config["Entrypoint"] = spec.entrypoint;
  if (!spec.cmd.empty()) config["Cmd"] = spec.cmd;
  if (!spec.env.empty()) config["Env"] = spec.env;
  if (!spec.workdir.empty()) config["WorkingDir"] = spec.workdir;
  if (!spec.user.empty()) config["User"] = spec.user;
  if (!spec.labels.empty()) config["Labels"] = spec.labels;
  json diff_ids = json::array();
  for (const Digest& d : spec.diff_ids) diff_ids.push_back(d.ToString());
  json history = json::array();
  for (const std::string& h : spec.history) {
    history.push_back({{"created", spec.created}, {"created_by", h.substr(0, kHistoryNameMax)}});
  }
  json document = {{"created", spec.created},
                   {"architecture", spec.platform.architecture},
                   {"os", spec.platform.os},
                   {"config", config},
                   {"rootfs", {{"type", "layers"}, {"diff_ids", diff_ids}}},
                   {"history", history}};
  if (!spec.platform.variant.empty()) document["variant"] = spec.platform.variant;
  return Dump(document);
}

std::string PrintManifest(const Manifest& manifest) {
  json layers = json::array();
  for (const Descriptor& d : manifest.layers) layers.push_back(WriteDescriptor(d));
  json document = {{"schemaVersion", 2},
                   {"mediaType", manifest.media_type},
                   {"config", WriteDescriptor(manifest.config)},
                   {"layers", layers}};
  if (!manifest.annotations.empty()) document["annotations"] = manifest.annotations;
  return Dump(document);
}

Result<std::string> ReplaceLayers(std::string_view body, const std::vector<Descriptor>& layers) {
  return ReplaceList(body, "layers", kOciManifest, layers);
}

Result<std::string> ReplaceChildren(std::string_view body, const std::vector<Descriptor>& manifests) {
  return ReplaceList(body, "manifests", kOciIndex, manifests);
}

Result<std::string> PutLayoutEntry(std::string_view body, const Descriptor& entry, const std::string& tag) {
  json document = {{"schemaVersion", 2}, {"mediaType", kOciIndex}, {"manifests", json::array()}};
  if (!body.empty()) {
    HR_ASSIGN_OR_RETURN(document, ParseObject(body, kDocumentBytesMax, "index.json"));
  }
  return Guard("index.json", [&]() -> Result<std::string> {
    const json& old = document.at("manifests");
    if (!old.is_array()) return InvalidArgumentError("index.json: manifests is not a list");
    json manifests = json::array();
    for (const json& item : old) {
      auto annotations = item.find("annotations");
      const bool same_tag = annotations != item.end() && annotations->value(std::string(kRefNameAnnotation), "") == tag;
      if (!same_tag) manifests.push_back(item);
    }
    Descriptor tagged = entry;
    tagged.annotations[std::string(kRefNameAnnotation)] = tag;
    manifests.push_back(WriteDescriptor(tagged));
    document["manifests"] = std::move(manifests);
    return Dump(document, 2);
  });
}

std::string FormatTime(int64_t seconds) {
  const time_t t = static_cast<time_t>(seconds);
  struct tm parts;
  char buffer[64];
  if (::gmtime_r(&t, &parts) == nullptr) return "1970-01-01T00:00:00Z";
  return std::string(buffer, std::strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%SZ", &parts));
}

Result<int64_t> ParseTime(std::string_view text) {
  constexpr uint64_t kSecondsMax = 253402300799;  // the end of year 9999, the last that RFC 3339 can write
  if (Result<uint64_t> seconds = ParseU64(text); seconds.ok() && *seconds <= kSecondsMax) {
    return static_cast<int64_t>(*seconds);
  }
  struct tm parts {};
  const std::string copy(text);
  const char* end = ::strptime(copy.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  if (end == nullptr || *end != '\0') {
    return InvalidArgumentError("time '" + copy + "': write it as 2024-05-01T12:00:00Z or as seconds since 1970");
  }
  return static_cast<int64_t>(::timegm(&parts));
}

}  // namespace headrace::cli
