// A node made of files: what `headrace install` and `headrace doctor` look at, below a temporary directory.
#ifndef HEADRACE_TEST_CLI_NODE_FIXTURE_H_
#define HEADRACE_TEST_CLI_NODE_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <sstream>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "snapshotter/cli/command_line.h"
#include "snapshotter/cli/node/node_root.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::cli {

class NodeTest : public ::testing::Test {
 protected:
  void Put(const std::string& path, std::string_view text, unsigned mode = 0644) {
    ASSERT_OK(MakeDirs(node_ + DirectoryOf(path), 0755));
    ASSERT_OK(WriteFileAtomic(node_ + path, text, mode, Durability::kProcessCrash));
  }
  // "" if there is none.
  std::string Get(const std::string& path) const {
    auto text = ReadFile(node_ + path, 1 << 20);
    return text.ok() ? *text : "";
  }
  bool Exists(const std::string& path) const {
    struct stat st;
    return ::lstat((node_ + path).c_str(), &st) == 0;
  }
  // A program that says this version.
  void InstallContainerd(const std::string& words) { Put("/usr/bin/containerd", "#!/bin/sh\necho '" + words + "'\n", 0755); }

  // `headrace COMMAND --root NODE ...`; its exit code.
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--root", node_});
    std::ostringstream out, err;
    const int code = RunCommandLine(arguments, {out, err});
    out_ = out.str(), err_ = err.str();
    return code;
  }

  test::TempDir dir_;
  std::string node_ = dir_ / "node";
  std::string out_, err_;
};

}  // namespace headrace::cli

#endif  // HEADRACE_TEST_CLI_NODE_FIXTURE_H_
