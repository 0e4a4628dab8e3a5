#include "snapshotter/cli/registry_store.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>

#include "fusefs/base/metrics.h"
#include "fusefs/registry/client.h"

namespace headrace::cli {
namespace {

using registry::Client;
using registry::Reference;

// The client counts into metrics, so they go together and in this order.
struct Session {
  Metrics metrics;
  std::unique_ptr<Client> client;
};

// The first question to a registry fails soon, so that a mistyped name is not tried for minutes; later ones have the client's patience.
constexpr std::chrono::seconds kFirstDeadline{15};

Result<std::unique_ptr<Session>> Connect(const Reference& reference, const StoreOptions& options,
                                         std::optional<std::chrono::milliseconds> deadline = std::nullopt) {
  registry::ClientOptions client;
  if (deadline) client.request_deadline = *deadline;
  HR_ASSIGN_OR_RETURN(client.docker_config_path, DockerConfigPath(options));
  client.hosts_dir = options.hosts_dir;
  if (options.plain_http) client.plain_http_hosts.push_back(reference.host);
  auto session = std::make_unique<Session>();
  HR_ASSIGN_OR_RETURN(session->client, Client::Create(client, session->metrics));
  return session;
}

Result<Document> GetDocument(Session& session, const Reference& reference) {
  HR_ASSIGN_OR_RETURN(registry::ManifestResponse response, session.client->GetManifest(reference));
  return Document{std::move(response.body), std::move(response.media_type), response.digest};
}

class RegistryReader : public ImageReader {
 public:
  RegistryReader(Reference reference, std::unique_ptr<Session> session, Document root)
      : reference_(std::move(reference)), session_(std::move(session)), root_(std::move(root)) {}
  std::string name() const override { return reference_.ToString(); }
  const Reference* reference() const override { return &reference_; }

  Result<Document> Root() override { return root_; }

  Result<Document> Child(const Descriptor& descriptor) override {
    Reference child = reference_;
    child.tag.clear();
    child.digest = descriptor.digest;
    HR_ASSIGN_OR_RETURN(Document document, GetDocument(*session_, child));
    if (document.body.size() != descriptor.size) {
      return DataLossError(child.ToString() + ": " + std::to_string(document.body.size()) +
                           " bytes, the index says " + std::to_string(descriptor.size));
    }
    return document;
  }

  Status Blob(const Descriptor& d, Verified by, const Sink& sink) override {
    uint64_t seen = 0;
    HR_RETURN_IF_ERROR(session_->client->GetBlob(reference_, d.digest, [&](std::span<const uint8_t> data) -> Status {
      seen += data.size();
      if (seen > d.size) return DataLossError(Where(d) + ": longer than its descriptor says");
      return sink(data);
    }, by));
    if (seen != d.size) return DataLossError(Where(d) + ": another size than its descriptor says");
    return {};
  }

  Result<std::string> BlobRange(const Descriptor& d, uint64_t offset, uint64_t size) override {
    return session_->client->GetBlobRange(reference_, d.digest, offset, size);
  }

 private:
  std::string Where(const Descriptor& d) const { return name() + ": blob " + d.digest.ToString(); }

  Reference reference_;
  std::unique_ptr<Session> session_;
  const Document root_;
};

class RegistryWriter : public ImageWriter {
 public:
  RegistryWriter(Reference reference, std::unique_ptr<Session> session, std::unique_ptr<Staging> staging)
      : reference_(std::move(reference)), session_(std::move(session)), staging_(std::move(staging)) {}
  std::string name() const override { return reference_.ToString(); }
  Staging& staging() override { return *staging_; }

  Result<bool> Has(const Descriptor& blob) override {
    Result<uint64_t> size = session_->client->StatBlob(reference_, blob.digest);
    if (size.ok()) return *size == blob.size;
    if (size.status().code() == StatusCode::kNotFound) return false;
    return size.status();
  }

  Status PutStaged(StagedBlob& staged, const Digest& digest, const Progress& progress) override {
    HR_RETURN_IF_ERROR(staged.Close(Durable::kNo));
    return session_->client->PushBlobFile(reference_, digest, staged.path(), progress ? progress : [](uint64_t) {});
  }

  Status PutBlob(const Digest& digest, std::string_view content) override {
    return session_->client->PushBlob(reference_, digest, content);
  }

  Result<bool> TakeOver(const Descriptor& blob, const ImageReader& from) override {
    HR_ASSIGN_OR_RETURN(const bool there, Has(blob));
    if (there) return true;
    const Reference* source = from.reference();
    if (source == nullptr || source->host != reference_.host || source->repository == reference_.repository) return false;
    return session_->client->MountBlob(reference_, blob.digest, source->repository);
  }

  Status PutChild(const Document& document) override {
    Reference child = reference_;
    child.tag.clear();
    child.digest = document.digest;
    return session_->client->PutManifest(child, document.media_type, document.body);
  }

  Status PutRoot(const Document& document) override {
    return session_->client->PutManifest(reference_, document.media_type, document.body);
  }

 private:
  Reference reference_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Staging> staging_;
};

}  // namespace

Result<std::string> DockerConfigPath(const StoreOptions& options) {
  if (options.docker_config) {
    if (::access(options.docker_config->c_str(), R_OK) != 0) {
      return Status::FromErrno(errno, "--docker-config " + *options.docker_config);
    }
    return *options.docker_config;
  }
  std::string path;
  if (const char* dir = std::getenv("DOCKER_CONFIG"); dir != nullptr && *dir != '\0') {
    path = std::string(dir) + "/config.json";
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    path = std::string(home) + "/.docker/config.json";
  }
  return !path.empty() && ::access(path.c_str(), R_OK) == 0 ? path : std::string();
}

Result<std::unique_ptr<ImageReader>> OpenRegistryReader(const Reference& reference, const StoreOptions& options) {
  HR_ASSIGN_OR_RETURN(std::unique_ptr<Session> first, Connect(reference, options, kFirstDeadline));
  HR_ASSIGN_OR_RETURN(Document root, GetDocument(*first, reference));
  HR_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Connect(reference, options));
  return std::unique_ptr<ImageReader>(new RegistryReader(reference, std::move(session), std::move(root)));
}

Result<std::unique_ptr<ImageWriter>> OpenRegistryWriter(const Reference& reference, const StoreOptions& options) {
  if (reference.digest) {
    return InvalidArgumentError(reference.ToString() + ": a target is named by a tag, its digest is the outcome");
  }
  HR_ASSIGN_OR_RETURN(std::unique_ptr<Session> first, Connect(reference, options, kFirstDeadline));
  // Whether any blob is there does not matter, only that the registry answers and knows us.
  const Status answer = first->client->StatBlob(reference, Digest::Of("")).status();
  if (!answer.ok() && answer.code() != StatusCode::kNotFound) return answer;
  HR_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Connect(reference, options));
  const std::string parent = options.tmp_dir.empty() ? DefaultTmpDir() : options.tmp_dir;
  HR_ASSIGN_OR_RETURN(std::unique_ptr<Staging> staging, Staging::Create(parent, Staging::ReadBack::kSoon, options.interrupt));
  return std::unique_ptr<ImageWriter>(new RegistryWriter(reference, std::move(session), std::move(staging)));
}

}  // namespace headrace::cli
