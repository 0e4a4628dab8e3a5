// TempDir: a directory of the test's own, removed with everything in it when the object goes. Not thread-safe.
#ifndef HEADRACE_TEST_SUPPORT_TEMP_DIR_H_
#define HEADRACE_TEST_SUPPORT_TEMP_DIR_H_

#include <string>

namespace headrace::test {

class TempDir {
 public:
  // Below TMPDIR (or /tmp), or below `base`.
  explicit TempDir(const std::string& base = {});
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Seed of random tests: HEADRACE_TEST_SEED if set, else from the clock; printed, so that a failure can be repeated.
unsigned long TestSeed();

}  // namespace headrace::test

#endif  // HEADRACE_TEST_SUPPORT_TEMP_DIR_H_
