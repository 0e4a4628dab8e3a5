#include "test/cli/cli_fixture.h"

#include <sys/stat.h>

#include <cstdlib>
#include <random>
#include <sstream>

#include "fusefs/base/file.h"
#include "snapshotter/cli/command_line.h"
#include "test/support/matchers.h"

namespace headrace::cli {

void CliTest::Write(const std::string& path, std::string_view content, unsigned mode) {
  const std::string full = Path(path);
  ASSERT_OK(MakeDirs(full.substr(0, full.rfind('/')), 0755));
  ASSERT_OK(WriteFileAtomic(full, content, 0600));
  ASSERT_EQ(::chmod(full.c_str(), mode), 0);
}

std::string CliTest::Read(const std::string& path) const {
  Result<std::string> content = ReadFile(Path(path), 256 << 20);
  EXPECT_OK(content);
  return content.ok() ? *content : std::string();
}

std::string CliTest::Weights(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string out(size, '\0');
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<char>(i % 2 == 0 ? random() & 0xFF : 0x3C + (random() & 3));
  return out;
}

std::string CliTest::Shell(const std::string& command) const {
  const std::string whole = "cd '" + dir_.path() + "' && LC_ALL=C.UTF-8 TZ=UTC && export LC_ALL TZ && (" + command + ") > .shell-out";
  EXPECT_EQ(std::system(whole.c_str()), 0) << command;
  return Read(".shell-out");
}

std::string CliTest::BlobFile(const std::string& layout, const Digest& digest) const {
  return layout + "/blobs/sha256/" + digest.Hex();
}

Descriptor CliTest::PutBlob(const std::string& layout, std::string_view content, std::string_view media_type) const {
  Descriptor d;
  d.media_type = media_type;
  d.digest = Digest::Of(content);
  d.size = content.size();
  EXPECT_OK(MakeDirs(Path(layout) + "/blobs/sha256", 0755));
  EXPECT_OK(WriteFileAtomic(Path(BlobFile(layout, d.digest)), content));
  return d;
}

Descriptor CliTest::PutImage(const std::string& layout, const std::vector<HandLayer>& layers, const Platform& platform,
                             bool docker) const {
  ConfigSpec spec;
  spec.platform = platform;
  spec.created = "2020-01-01T00:00:00Z";
  Manifest manifest;
  manifest.media_type = docker ? kDockerManifest : kOciManifest;
  for (const HandLayer& layer : layers) {
    spec.diff_ids.push_back(Digest::Of(layer.tar));
    spec.history.push_back("by hand");
    manifest.layers.push_back(PutBlob(layout, layer.blob, layer.media_type));
    manifest.layers.back().annotations = layer.annotations;
  }
  // A field that we do not know, odd spacing: the config must come through to the byte.
  const std::string config = "  " + PrintConfig(spec) + " \n";
  manifest.config = PutBlob(layout, config, docker ? kDockerConfig : kOciConfig);
  Descriptor root = PutBlob(layout, PrintManifest(manifest), manifest.media_type);
  root.platform = platform;
  return root;
}

void CliTest::Tag(const std::string& layout, const Descriptor& root, const std::string& tag) const {
  Result<std::string> index = PutLayoutEntry("", root, tag);
  ASSERT_OK(index);
  ASSERT_OK(WriteFileAtomic(Path(layout) + "/index.json", *index));
  ASSERT_OK(WriteFileAtomic(Path(layout) + "/oci-layout", R"({"imageLayoutVersion": "1.0.0"})"));
}

Document CliTest::Root(const std::string& layout, const std::string& tag) const {
  Result<std::unique_ptr<ImageReader>> reader = OpenReader(At("oci:" + layout + ":" + tag), {});
  EXPECT_OK(reader);
  if (!reader.ok()) return {};
  Result<Document> root = (*reader)->Root();
  EXPECT_OK(root);
  return root.ok() ? *root : Document{};
}

Manifest CliTest::RootManifest(const std::string& layout, const std::string& tag) const {
  Result<Manifest> manifest = ParseManifest(Root(layout, tag).body);
  EXPECT_OK(manifest);
  return manifest.ok() ? *manifest : Manifest{};
}

std::string CliTest::SmallTar(const std::string& name, const std::string& content) const {
  EXPECT_OK(MakeDirs(Path(".tar"), 0755));
  EXPECT_OK(WriteFileAtomic(Path(".tar/" + name), content));
  return Shell("tar -C .tar --owner 0 --group 0 --mtime @1 -c '" + name + "' && rm -r .tar");
}

std::string CliTest::Gzip(const std::string& data) const {
  EXPECT_OK(WriteFileAtomic(Path(".in"), data));
  return Shell("gzip -n < .in");
}

std::string CliTest::Zstd(const std::string& data) const {
  EXPECT_OK(WriteFileAtomic(Path(".in"), data));
  return Shell("zstd -q < .in");
}

Location CliTest::At(const std::string& text) const {
  const std::string full = text.starts_with("oci:") ? "oci:" + Path(text.substr(4)) : text;
  Result<Location> location = Location::Parse(full);
  EXPECT_OK(location);
  return location.ok() ? *location : Location{};
}

CommandContext CliTest::Context(unsigned jobs) const {
  CommandContext context;
  context.jobs = jobs;
  context.quiet = true;
  context.store.tmp_dir = "";
  return context;
}

int CliTest::Run(const std::vector<std::string>& arguments) {
  std::ostringstream out;
  std::ostringstream err;
  const int code = RunCommandLine(arguments, {out, err, nullptr});
  out_ = out.str();
  err_ = err.str();
  return code;
}

}  // namespace headrace::cli
