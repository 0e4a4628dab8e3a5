// Programs that tests put where credential helpers and providers are looked for: shell scripts.
#ifndef HEADRACE_TEST_REGISTRY_CREDENTIAL_TEST_UTIL_H_
#define HEADRACE_TEST_REGISTRY_CREDENTIAL_TEST_UTIL_H_

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

#include "fusefs/base/file.h"
#include "test/support/matchers.h"

namespace headrace::test {

inline void WriteScript(const std::string& path, const std::string& body) {
  ASSERT_OK(WriteFileAtomic(path, "#!/bin/sh\n" + body + "\n", 0755));
  ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
}

// How many lines a script has appended to a file.
inline size_t CountLines(const std::string& path) {
  Result<std::string> text = ReadFile(path, 1 << 20);
  return text.ok() ? static_cast<size_t>(std::count(text->begin(), text->end(), '\n')) : 0;
}

// $PATH with a directory in front, until the end of the scope.
class PathInFront {
 public:
  explicit PathInFront(const std::string& directory) : before_(std::getenv("PATH")) {
    ::setenv("PATH", (directory + ":" + before_).c_str(), 1);
  }
  ~PathInFront() { ::setenv("PATH", before_.c_str(), 1); }

 private:
  const std::string before_;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_REGISTRY_CREDENTIAL_TEST_UTIL_H_
