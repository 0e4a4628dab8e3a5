// ImageReader and ImageWriter: images in registries and in OCI layout directories, seen alike.
//
// Everything that a reader hands out whole was verified against the digest asked for, unless the caller takes that upon itself;
// BlobRange was not (the caller verifies).
// All methods block (network or disk) and may be called from several threads at once. Errors name the place and the content.
// StoreOptions.interrupt, where given, must outlive what was opened.
#ifndef HEADRACE_SNAPSHOTTER_CLI_IMAGE_STORE_H_
#define HEADRACE_SNAPSHOTTER_CLI_IMAGE_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/client.h"
#include "snapshotter/cli/image_model.h"
#include "snapshotter/cli/location.h"
#include "snapshotter/cli/staging.h"

namespace headrace::cli {

struct StoreOptions {
  std::optional<std::string> docker_config;  // unset: $DOCKER_CONFIG/config.json or ~/.docker/config.json, if there
  bool plain_http = false;                   // speak to the registry without TLS
  std::string hosts_dir;                     // containerd's config_path: directories with hosts.toml files
  std::string tmp_dir;                       // "": inside the layout, or $TMPDIR, or /var/tmp
  Interrupt* interrupt = nullptr;
};

struct Document {
  std::string body;
  std::string media_type;
  Digest digest;
};

class ImageReader {
 public:
  using Sink = std::function<Status(std::span<const uint8_t>)>;
  virtual ~ImageReader() = default;
  virtual std::string name() const = 0;
  // The manifest or index that the location names.
  virtual Result<Document> Root() = 0;
  // A manifest or index by its descriptor.
  virtual Result<Document> Child(const Descriptor& descriptor) = 0;
  // The whole blob in order. When it fails, also with DataLoss at the end, what the sink saw is not to be used. kByCaller: the digest
  // is not computed, because the caller compares another one over the same content (the DiffID of a layer's tar).
  using Verified = registry::Verified;
  virtual Status Blob(const Descriptor& descriptor, Verified by, const Sink& sink) = 0;
  virtual Result<std::string> BlobRange(const Descriptor& descriptor, uint64_t offset, uint64_t size) = 0;
  // Where it is, for registries that can take a blob over from a neighbour; null for layouts.
  virtual const registry::Reference* reference() const = 0;
};

class ImageWriter {
 public:
  using Progress = std::function<void(uint64_t)>;  // bytes since the last call
  virtual ~ImageWriter() = default;
  virtual std::string name() const = 0;
  // Whether a blob is there already, of the right size.
  virtual Result<bool> Has(const Descriptor& blob) = 0;
  virtual Staging& staging() = 0;
  // Takes the bytes of a closed or open staged file, which has the digest; the caller made sure of that.
  virtual Status PutStaged(StagedBlob& staged, const Digest& digest, const Progress& progress) = 0;
  virtual Status PutBlob(const Digest& digest, std::string_view content) = 0;
  // Takes a blob over without moving bytes; false if that is not possible.
  virtual Result<bool> TakeOver(const Descriptor& blob, const ImageReader& from) = 0;
  virtual Status PutChild(const Document& document) = 0;
  // The last step: the tag points to it afterwards.
  virtual Status PutRoot(const Document& document) = 0;
};

Result<std::unique_ptr<ImageReader>> OpenReader(const Location& location, const StoreOptions& options);
Result<std::unique_ptr<ImageWriter>> OpenWriter(const Location& location, const StoreOptions& options);

// Small blobs (configs) as a string; ResourceExhausted above `limit`.
Result<std::string> ReadBlob(ImageReader& reader, const Descriptor& descriptor, uint64_t limit);

// Used by the two implementations and by the convert command.
std::string DefaultTmpDir();

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_IMAGE_STORE_H_
