#include "fusefs/format/image_documents.h"

#include <sys/utsname.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fusefs/base/text.h"
#include "fusefs/format/json_object.h"

namespace headrace::format {
namespace {

using nlohmann::json;

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
  HR_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body, kDocumentBytesMax, "manifest"));
  return GuardJson("manifest", [&]() -> Result<DocumentKind> {
    if (document.value("schemaVersion", json()) == 1) {  // as a value: a number that no int can hold is no error
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
  HR_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body, kDocumentBytesMax, "manifest"));
  return GuardJson("manifest", [&]() -> Result<Manifest> {
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
  HR_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body, kDocumentBytesMax, "index"));
  return GuardJson("index", [&]() -> Result<Index> {
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
  HR_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body, kConfigBytesMax, "image config"));
  return GuardJson("image config", [&]() -> Result<ImageConfig> {
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

}  // namespace headrace::format
