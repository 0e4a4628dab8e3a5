// Dependencies between the modules point one way. Method: every #include of a file of ours is looked up in the
// table below; libraries of others that belong to one module are looked for everywhere else.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "test/tidy/source_files.h"

namespace headrace::test {
namespace {

// What a module may include of others. fusefs: base <- {format, registry, cache} <- stream <- vfs <- kernel <- daemon;
// format <- tree <- vfs. The snapshotter uses only base of fusefs and talks to the daemon through layers/; the
// command may use format and registry, and for baking what attaches layers without a kernel (daemon/bake.h).
const std::map<std::string, std::set<std::string>> kMayUse = {
    {"config", {"fusefs/base"}},
    {"fusefs/base", {}},
    {"fusefs/format", {"fusefs/base"}},
    {"fusefs/registry", {"fusefs/base"}},
    {"fusefs/cache", {"fusefs/base"}},
    {"fusefs/stream", {"fusefs/base", "fusefs/format", "fusefs/registry", "fusefs/cache"}},
    {"fusefs/tree", {"fusefs/base", "fusefs/format"}},
    {"fusefs/vfs", {"fusefs/base", "fusefs/format", "fusefs/tree", "fusefs/stream"}},
    {"fusefs/kernel", {"fusefs/base", "fusefs/stream", "fusefs/vfs"}},
    {"fusefs/daemon",
     {"config", "fusefs/base", "fusefs/format", "fusefs/registry", "fusefs/cache", "fusefs/stream", "fusefs/tree",
      "fusefs/vfs", "fusefs/kernel", "proto"}},
    {"snapshotter/filter", {"fusefs/base"}},
    {"snapshotter/store", {"fusefs/base", "snapshotter/filter"}},
    {"snapshotter/layers", {"fusefs/base", "snapshotter/store", "proto"}},
    {"snapshotter/keychain", {"fusefs/base", "proto"}},
    {"snapshotter/keeper", {"fusefs/base"}},
    {"snapshotter/core", {"fusefs/base", "snapshotter/filter", "snapshotter/store", "snapshotter/layers"}},
    {"snapshotter/service", {"fusefs/base", "snapshotter/core", "snapshotter/store", "snapshotter/filter", "proto"}},
    {"snapshotter/cli", {"config", "fusefs/base", "fusefs/format", "fusefs/registry", "fusefs/daemon", "proto"}},
    {"snapshotter",
     {"config", "fusefs/base", "proto", "snapshotter/core", "snapshotter/filter", "snapshotter/keeper",
      "snapshotter/keychain", "snapshotter/layers", "snapshotter/service", "snapshotter/store"}},
};

// Headers of libraries that one module keeps to itself: beginning of the include -> modules.
const std::map<std::string, std::set<std::string>> kOwners = {
    {"<fuse", {"fusefs/kernel"}},
    {"<curl/", {"fusefs/registry"}},
    {"<zstd", {"fusefs/format"}},
    {"<sqlite3", {"snapshotter/store"}},
    {"<toml++", {"config", "fusefs/registry"}},
    {"<yaml-cpp", {"fusefs/registry"}},
    {"<xxhash", {"fusefs/tree", "fusefs/cache"}},
    {"<grpc",
     {"fusefs/daemon", "snapshotter/keychain", "snapshotter/layers", "snapshotter/service", "snapshotter/cli",
      "snapshotter"}},
    {"<CLI/", {"snapshotter/cli", "fusefs/daemon", "snapshotter"}},
};

// "fusefs/tree/x.h" -> "fusefs/tree"; "config/x.h" -> "config"; "snapshotter/main.cc" -> "snapshotter".
std::string ModuleOf(const std::string& path) {
  if (path.find(".pb.h") != std::string::npos) return "proto";  // generated
  const size_t first = path.find('/');
  const std::string top = path.substr(0, first);
  const size_t second = path.find('/', first + 1);
  if ((top != "fusefs" && top != "snapshotter") || second == std::string::npos) return top;
  return path.substr(0, second);
}

// What stands behind #include, with its quotes or brackets; "" if the line is none.
std::string IncludeOf(const std::string& line) {
  const std::string prefix = "#include ";
  return line.starts_with(prefix) ? line.substr(prefix.size()) : "";
}

// Goal: the arrows of the design hold.
TEST(ArrowsTest, ModulesUseOnlyWhatIsBelowThem) {
  size_t checked = 0;
  for (const SourceFile& file : ReadSources()) {
    if (file.is_test()) continue;
    const std::string module = ModuleOf(file.path);
    const auto allowed = kMayUse.find(module);
    ASSERT_NE(allowed, kMayUse.end()) << file.path << ": the module " << module << " is not in the table of this test";
    for (const std::string& line : file.lines) {
      const std::string include = IncludeOf(line);
      if (!include.starts_with("\"") || include.find('/') == std::string::npos) continue;
      const std::string used = ModuleOf(include.substr(1));
      ++checked;
      EXPECT_TRUE(used == module || allowed->second.contains(used)) << file.path << " must not use " << include;
    }
  }
  EXPECT_GT(checked, 100u) << "the sources were not found";
}

// Goal: a library can be replaced in one place.
TEST(ArrowsTest, LibrariesStayInTheirModules) {
  for (const SourceFile& file : ReadSources()) {
    if (file.is_test()) continue;
    for (const std::string& line : file.lines) {
      const std::string include = IncludeOf(line);
      for (const auto& [prefix, owners] : kOwners) {
        if (!include.starts_with(prefix)) continue;
        EXPECT_TRUE(owners.contains(ModuleOf(file.path))) << file.path << " must not use " << include;
      }
    }
  }
}

// Goal: includes of our own are written from the root, so that the table above sees them.
TEST(ArrowsTest, IncludesAreWrittenFromTheRoot) {
  const std::set<std::string> tops{"config", "fusefs", "integration", "proto", "snapshotter", "test"};
  for (const SourceFile& file : ReadSources()) {
    for (const std::string& line : file.lines) {
      const std::string include = IncludeOf(line);
      if (!include.starts_with("\"")) continue;
      if (ModuleOf(include) == "proto") continue;
      EXPECT_TRUE(tops.contains(include.substr(1, include.find('/') - 1))) << file.path << ": " << include;
    }
  }
}

}  // namespace
}  // namespace headrace::test
