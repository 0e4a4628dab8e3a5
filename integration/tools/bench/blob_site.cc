#include "integration/tools/bench/blob_site.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <chrono>
#include <optional>

#include "fusefs/base/text.h"
#include "integration/tools/bench/common.h"
#include "integration/tools/bench/layout.h"

namespace headrace::bench {
namespace {

const std::string kSignedPrefix = "/storage/";
constexpr uint64_t kDocumentBytesMax = 4 * kMib;

uint64_t NowMs() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

Answer Plain(HttpResponse response) {
  Answer answer;
  answer.response = std::move(response);
  return answer;
}

Answer Unknown(const std::string& code, const std::string& what) { return Plain(HttpResponse::Error(404, code, what + " unknown")); }

// The value of a query parameter; "" if it is not there.
std::string Parameter(const std::string& query, const std::string& name) {
  for (const std::string_view part : Split(query, '&')) {
    if (part.starts_with(name + "=")) return std::string(part.substr(name.size() + 1));
  }
  return "";
}

}  // namespace

BlobSite::BlobSite(const SiteOptions& options) : options_(options), secret_(16, '\0') {
  if (getrandom(secret_.data(), secret_.size(), 0) != static_cast<ssize_t>(secret_.size())) FailErrno("getrandom");
  struct stat st;
  if (stat((options_.layout + "/oci-layout").c_str(), &st) != 0) FailErrno(options_.layout + "/oci-layout");
}

Answer BlobSite::Respond(const HttpRequest& request) {
  if (request.path == "/stats" && request.method == "GET") return Stats();
  if (request.path == "/reset" && request.method == "POST") {
    Reset();
    return Stats();
  }
  ++stats_.requests;
  if (request.method != "GET" && request.method != "HEAD") {
    return Plain(HttpResponse::Error(405, "UNSUPPORTED", "this registry is only read"));
  }
  Answer answer = request.path.starts_with(kSignedPrefix) ? Signed(request) : Registry(request);
  if (request.method == "HEAD") {
    answer.response.body.clear();
    answer.blob = nullptr;
  }
  if (answer.blob) ++stats_.blob_requests;
  return answer;
}

Answer BlobSite::Registry(const HttpRequest& request) {
  const std::string& path = request.path;
  if (path == "/v2/" || path == "/v2") return Plain(HttpResponse::Text(200, "application/json", "{}"));
  if (!path.starts_with("/v2/")) return Unknown("NAME_UNKNOWN", "path");
  const size_t last = path.rfind('/');
  const std::string what = path.substr(last + 1);
  const std::string before = path.substr(0, last);
  if (before.ends_with("/manifests")) return Manifest(what);
  if (!before.ends_with("/blobs")) return Unknown("NAME_UNKNOWN", "path");
  if (!options_.redirect) return Blob(request, what);
  const Result<Digest> digest = Digest::Parse(what);
  return digest.ok() && Open(*digest) ? Redirect(request, *digest) : Unknown("BLOB_UNKNOWN", "blob");
}

Answer BlobSite::Manifest(const std::string& reference) {
  Result<Digest> digest = Digest::Parse(reference);
  if (!digest.ok()) {
    const Result<std::string> text = ReadFile(options_.layout + "/index.json", kDocumentBytesMax);
    const Result<cli::Index> index = text.ok() ? cli::ParseIndex(*text) : text.status();
    if (!index.ok()) return Plain(HttpResponse::Error(500, "UNKNOWN", "index.json cannot be read"));
    for (const cli::Descriptor& entry : index->manifests) {
      const auto name = entry.annotations.find(std::string(cli::kRefNameAnnotation));
      if (name != entry.annotations.end() && name->second == reference) digest = entry.digest;
    }
    if (!digest.ok()) return Unknown("MANIFEST_UNKNOWN", "manifest");
  }
  const Result<std::string> text = ReadFile(BlobPath(options_.layout, *digest), kDocumentBytesMax);
  if (!text.ok()) return Unknown("MANIFEST_UNKNOWN", "manifest");
  const Json json = Json::parse(*text, nullptr, false);
  const std::string kind(json.is_object() && json.contains("manifests") ? cli::kOciIndex : cli::kOciManifest);
  Answer answer = Plain(HttpResponse::Text(200, json.is_object() ? json.value("mediaType", kind) : kind, *text));
  answer.response.headers.emplace_back("Docker-Content-Digest", digest->ToString());
  return answer;
}

Answer BlobSite::Blob(const HttpRequest& request, const std::string& name) {
  const Result<Digest> digest = Digest::Parse(name);
  const std::shared_ptr<const BlobFile> file = digest.ok() ? Open(*digest) : nullptr;
  if (!file) return Unknown("BLOB_UNKNOWN", "blob");
  Answer answer = Plain(HttpResponse::Text(200, "application/octet-stream", ""));
  HttpResponse& response = answer.response;
  response.headers.emplace_back("Accept-Ranges", "bytes");
  response.headers.emplace_back("Docker-Content-Digest", digest->ToString());
  response.headers.emplace_back("ETag", "\"" + digest->ToString() + "\"");
  const std::string size = std::to_string(file->size);
  switch (ParseRange(request.header("range"), file->size, answer.range)) {
    case RangeKind::kWhole:
      break;
    case RangeKind::kPart:
      response.status = 206;
      response.headers.emplace_back("Content-Range", "bytes " + std::to_string(answer.range.begin) + "-" +
                                                         std::to_string(answer.range.end - 1) + "/" + size);
      break;
    case RangeKind::kUnsatisfiable:
      response.status = 416;
      response.headers.emplace_back("Content-Range", "bytes */" + size);
      return answer;
  }
  answer.blob = file;
  response.content_length = answer.range.end - answer.range.begin;
  return answer;
}

Answer BlobSite::Redirect(const HttpRequest& request, const Digest& digest) {
  ++stats_.redirects;
  const std::string name = digest.ToString();
  const std::string expires = std::to_string(NowMs() + static_cast<uint64_t>(options_.redirect_ttl_s * 1000));
  Answer answer = Plain(HttpResponse::Text(307, "text/plain", ""));
  answer.response.headers.emplace_back("Location", "http://" + request.header("host") + kSignedPrefix + name + "?X-Expires=" + expires +
                                                       "&X-Signature=" + Signature(name, expires));
  return answer;
}

Answer BlobSite::Signed(const HttpRequest& request) {
  const std::string name = request.path.substr(kSignedPrefix.size());
  const std::string expires = Parameter(request.query, "X-Expires");
  const Result<uint64_t> until = ParseU64(expires);
  if (!until.ok() || Parameter(request.query, "X-Signature") != Signature(name, expires)) {
    return Plain(HttpResponse::Text(403, "application/xml", "<Error><Code>SignatureDoesNotMatch</Code></Error>\n"));
  }
  if (NowMs() >= *until) {
    ++stats_.expired;
    return Plain(HttpResponse::Text(403, "application/xml", "<Error><Code>AccessDenied</Code><Message>expired</Message></Error>\n"));
  }
  return Blob(request, name);
}

Answer BlobSite::Stats() const {
  const Json json = {{"requests", stats_.requests.load()},       {"blob_requests", stats_.blob_requests.load()},
                     {"blob_bytes", stats_.blob_bytes.load()},   {"redirects", stats_.redirects.load()},
                     {"expired", stats_.expired.load()},         {"connections", stats_.connections.load()},
                     {"max_connections", stats_.max_connections.load()}};
  Answer answer = Plain(HttpResponse::Text(200, "application/json", json.dump() + "\n"));
  answer.control = true;
  return answer;
}

void BlobSite::Reset() {
  for (std::atomic<uint64_t>* counter : {&stats_.requests, &stats_.blob_requests, &stats_.blob_bytes, &stats_.redirects, &stats_.expired}) {
    *counter = 0;
  }
  stats_.max_connections = stats_.connections.load();
}

std::shared_ptr<const BlobFile> BlobSite::Open(const Digest& digest) {
  const std::lock_guard lock(mutex_);  // held across a local open: once for each blob
  auto& file = files_[digest];
  if (file) return file;
  Result<UniqueFd> fd = OpenFile(BlobPath(options_.layout, digest), O_RDONLY);
  struct stat st;
  if (!fd.ok() || fstat(fd->get(), &st) != 0) return nullptr;
  auto opened = std::make_shared<BlobFile>();
  opened->fd = std::move(*fd);
  opened->size = static_cast<uint64_t>(st.st_size);
  file = opened;
  return file;
}

std::string BlobSite::Signature(const std::string& digest, const std::string& expires) const {
  return Digest::Of(secret_ + digest + "\n" + expires).Hex();
}

}  // namespace headrace::bench
