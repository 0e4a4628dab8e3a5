#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "fusefs/base/file.h"
#include "fusefs/registry/client_impl.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

std::string BlobText(const Digest& digest) { return "blob " + digest.ToString(); }

}  // namespace

// The bytes to be uploaded, readable from any offset, and how many of them the caller was told about.
struct ClientImpl::Upload {
  uint64_t size = 0;
  std::function<Result<size_t>(uint64_t offset, std::span<uint8_t> buffer)> read;
  std::function<void(uint64_t)> progress;
  uint64_t told = 0;

  void Tell(uint64_t done) {
    if (done <= told) return;  // sent again
    if (progress) progress(done - told);
    told = done;
  }
};

ExchangeResult ClientImpl::StartUpload(const Reference& ref, const Digest& digest, const Attempt& attempt, Url& location) {
  ExchangeRequest request = NewRequest(ref, "POST", "/blobs/uploads/", "upload of " + BlobText(digest));
  request.auth.actions = "pull,push";
  request.follow_redirects = false;
  request.body = "";
  const Url url = request.url;
  const std::string what = request.what;
  auto answer = std::make_shared<Collector>(0);
  ExchangeResult result = Run(std::move(request), answer, attempt);
  if (!result.status.ok()) return result;
  const std::string* header = answer->head().Find("location");
  Result<Url> target = header != nullptr ? Url::Resolve(url, *header) : InvalidArgumentError("there is no Location");
  if (!target.ok()) {
    result.status = target.status().Annotate(what);
    return result;
  }
  location = std::move(*target);
  // Registries behind a TLS proxy that do not know their own scheme.
  if (url.scheme == "https" && location.scheme == "http" && location.host == url.host) location.scheme = "https";
  if (url.scheme == "https" && location.scheme == "http") {
    result.status = FailedPreconditionError(what + ": the registry wants the upload at a plain http host");
  }
  return result;
}

ExchangeResult ClientImpl::UploadOnce(const Reference& ref, const Digest& digest, Upload& upload, const Attempt& attempt) {
  Url location;
  ExchangeResult started = StartUpload(ref, digest, attempt, location);
  if (!started.status.ok()) return started;
  ExchangeRequest request = NewRequest(ref, "PUT", "", "upload of " + BlobText(digest));
  request.auth.actions = "pull,push";
  request.follow_redirects = false;
  request.bulk = true;
  // Credentials go to the registry's own origin only; an upload may be told to go elsewhere.
  request.target = location;
  request.target->target += (location.target.find('?') == std::string::npos ? "?digest=" : "&digest=") +
                            PercentEncode(digest.ToString());
  request.headers.push_back("Content-Type: application/octet-stream");
  request.stream_bytes = upload.size;
  auto pipe = std::make_shared<UploadPipe>();
  Status read_status;
  Attempt moving = attempt;
  ExchangeResult result = Run(std::move(request), pipe, moving, [&](Exchange& exchange) {
    for (uint64_t offset = 0; offset < upload.size;) {
      std::vector<uint8_t> piece(std::min<uint64_t>(kPieceBytes, upload.size - offset));
      Result<size_t> n = upload.read(offset, piece);
      read_status = n.ok() && *n != piece.size() ? FailedPreconditionError("the file became shorter") : n.status();
      if (!read_status.ok()) return exchange.Cancel();
      moving.deadline = std::chrono::steady_clock::now() + request_deadline();
      if (!pipe->Give(exchange, std::move(piece), moving.deadline)) return;
      offset += *n;
      upload.Tell(offset);
    }
    pipe->GiveEnd(exchange);
  });
  if (!read_status.ok()) result.status = read_status.Annotate("upload of " + BlobText(digest));
  return result;
}

Status ClientImpl::PushFrom(const Reference& ref, const Digest& digest, Upload& upload) {
  return WithRetries(kUploadAttemptsMax, [&](Attempt& attempt) {
    ExchangeResult result;
    Result<uint64_t> there = StatBlobFor(ref, digest, "pull,push");
    if (there.ok()) {
      upload.Tell(upload.size);
      return result;
    }
    // Some registries let push but not look; what is wrong will be said by the upload itself.
    if (there.status().code() != StatusCode::kNotFound && there.status().code() != StatusCode::kPermissionDenied) {
      result.status = there.status();
      return result;
    }
    attempt.deadline = std::chrono::steady_clock::now() + request_deadline();
    return UploadOnce(ref, digest, upload, attempt);
  });
}

Status ClientImpl::PushBlobFile(const Reference& ref, const Digest& digest, const std::string& path,
                                const std::function<void(uint64_t)>& progress) {
  HR_ASSIGN_OR_RETURN(UniqueFd file, OpenFile(path, O_RDONLY));
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return Status::FromErrno(errno, "stat " + path);
  Upload upload;
  upload.size = static_cast<uint64_t>(info.st_size);
  upload.progress = progress;
  upload.read = [&](uint64_t offset, std::span<uint8_t> buffer) -> Result<size_t> {
    Result<size_t> n = PreadFull(file.get(), buffer, offset);
    return n.ok() ? n : Result<size_t>(n.status().Annotate(path));
  };
  return PushFrom(ref, digest, upload);
}

Status ClientImpl::PushBlob(const Reference& ref, const Digest& digest, std::string_view content) {
  Upload upload;
  upload.size = content.size();
  upload.read = [content](uint64_t offset, std::span<uint8_t> buffer) -> Result<size_t> {
    std::copy_n(content.data() + offset, buffer.size(), buffer.data());
    return buffer.size();
  };
  return PushFrom(ref, digest, upload);
}

Result<bool> ClientImpl::MountBlob(const Reference& ref, const Digest& digest, const std::string& from_repository) {
  bool mounted = false;
  HR_RETURN_IF_ERROR(WithRetries(INT32_MAX, [&](Attempt& attempt) {
    ExchangeRequest request = NewRequest(ref, "POST", "/blobs/uploads/?mount=" + PercentEncode(digest.ToString()) + "&from=" +
                                                          PercentEncode(from_repository),
                                         "mount of " + BlobText(digest) + " from " + from_repository);
    request.auth.actions = "pull,push";
    request.auth.mount_from = from_repository;
    request.follow_redirects = false;
    request.body = "";
    auto answer = std::make_shared<Collector>(0);
    ExchangeResult result = Run(std::move(request), answer, attempt);
    mounted = result.status.ok() && answer->head().status == 201;
    return result;
  }));
  return mounted;
}

Status ClientImpl::PutManifest(const Reference& ref, const std::string& media_type, std::string_view body) {
  if (body.size() > kManifestBytesMax) {
    return InvalidArgumentError(Prefix(ref) + ": a manifest of " + std::to_string(body.size()) + " bytes is larger than 4 MiB");
  }
  const Digest digest = Digest::Of(body);
  const std::string key = ref.tag.empty() ? digest.ToString() : ref.tag;
  return WithRetries(INT32_MAX, [&](Attempt& attempt) {
    ExchangeRequest request = NewRequest(ref, "PUT", "/manifests/" + key, "push of manifest " + key);
    request.auth.actions = "pull,push";
    request.follow_redirects = false;
    request.headers.push_back("Content-Type: " + CleanText(media_type, 255));
    request.body = std::string(body);
    const std::string what = request.what;
    auto answer = std::make_shared<Collector>(0);
    ExchangeResult result = Run(std::move(request), answer, attempt);
    const std::string* stored = result.status.ok() ? answer->head().Find("docker-content-digest") : nullptr;
    if (stored != nullptr && *stored != digest.ToString()) {
      result.status = DataLossError(what + ": the registry stored it as " + CleanText(*stored, 100) + ", not as " +
                                    digest.ToString());
    }
    return result;
  });
}

}  // namespace headrace::registry
