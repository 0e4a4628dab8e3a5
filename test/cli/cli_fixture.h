// What the tests of the `headrace` command share: trees of files to build from, layouts made by hand, and short ways to run commands.
// Everything lives in the fixture's temporary directory.
#ifndef HEADRACE_TEST_CLI_CLI_FIXTURE_H_
#define HEADRACE_TEST_CLI_CLI_FIXTURE_H_

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "snapshotter/cli/build.h"
#include "snapshotter/cli/image_model.h"
#include "test/support/temp_dir.h"

namespace headrace::cli {

// One image of a layout made by hand: the layers' blobs as they are, and the tars that they hold.
struct HandLayer {
  std::string blob;
  std::string media_type;
  std::string tar;
  std::map<std::string, std::string> annotations;
};

class CliTest : public ::testing::Test {
 protected:
  // Files. `path` is relative to the temporary directory; missing directories are made.
  void Write(const std::string& path, std::string_view content, unsigned mode = 0644);
  std::string Read(const std::string& path) const;
  // Numbers that zstd shrinks a little, as weights do; the same for the same seed.
  static std::string Weights(size_t size, uint64_t seed);
  // Runs a shell command in the temporary directory; its standard output.
  std::string Shell(const std::string& command) const;

  // Layouts made by hand.
  Descriptor PutBlob(const std::string& layout, std::string_view content, std::string_view media_type) const;
  // Writes config and manifest; the manifest's descriptor.
  Descriptor PutImage(const std::string& layout, const std::vector<HandLayer>& layers, const Platform& platform,
                      bool docker = false) const;
  // index.json with one tagged entry.
  void Tag(const std::string& layout, const Descriptor& root, const std::string& tag) const;
  std::string BlobFile(const std::string& layout, const Digest& digest) const;
  Document Root(const std::string& layout, const std::string& tag) const;
  Manifest RootManifest(const std::string& layout, const std::string& tag) const;

  // A small tar, made by GNU tar of one file with this content.
  std::string SmallTar(const std::string& name, const std::string& content) const;
  std::string Gzip(const std::string& data) const;
  std::string Zstd(const std::string& data) const;

  // Commands.
  Location At(const std::string& text) const;  // "oci:x:tag" is under the temporary directory
  CommandContext Context(unsigned jobs = 2) const;
  // The program as a user runs it; exit code, with standard output and error in out() and err().
  int Run(const std::vector<std::string>& arguments);
  const std::string& out() const { return out_; }
  const std::string& err() const { return err_; }
  std::string Path(const std::string& relative) const { return dir_ / relative; }

 private:
  test::TempDir dir_;
  std::string out_;
  std::string err_;
};

}  // namespace headrace::cli

#endif  // HEADRACE_TEST_CLI_CLI_FIXTURE_H_
