#include "test/support/temp_dir.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "fusefs/base/file.h"

namespace headrace::test {

TempDir::TempDir(const std::string& base) {
  const char* usual = std::getenv("TMPDIR");
  path_ = (!base.empty() ? base : std::string(usual != nullptr ? usual : "/tmp")) + "/headrace-test-XXXXXX";
  HEADRACE_CHECK(::mkdtemp(path_.data()) != nullptr);
}

TempDir::~TempDir() {
  Status status = RemoveAll(path_);
  if (!status.ok()) std::fprintf(stderr, "could not remove %s: %s\n", path_.c_str(), status.ToString().c_str());
}

unsigned long TestSeed() {
  const char* given = std::getenv("HEADRACE_TEST_SEED");
  unsigned long seed = given != nullptr
      ? std::strtoul(given, nullptr, 10)
      : static_cast<unsigned long>(std::chrono::system_clock::now().time_since_epoch().count()) & 0xffffffff;
  std::printf("HEADRACE_TEST_SEED=%lu\n", seed);
  return seed;
}

}  // namespace headrace::test
