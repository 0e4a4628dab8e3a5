#include "snapshotter/cli/image_model.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "fusefs/base/text.h"
#include "fusefs/format/json_object.h"

namespace headrace::cli {
namespace {

using format::GuardJson;
using format::ParseJsonObject;
using nlohmann::json;

constexpr size_t kHistoryNameMax = 512;

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
  HR_ASSIGN_OR_RETURN(json document, ParseJsonObject(body, kDocumentBytesMax, "manifest"));
  return GuardJson("manifest", [&]() -> Result<std::string> {
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

}  // namespace

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
    HR_ASSIGN_OR_RETURN(document, ParseJsonObject(body, kDocumentBytesMax, "index.json"));
  }
  return GuardJson("index.json", [&]() -> Result<std::string> {
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
