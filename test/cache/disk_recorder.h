// DiskRecorder: records every change that this process makes below one directory, and shows files with the inode numbers and times of the model.
//
// The system calls that change files (and fstat, stat) are wrapped by the linker (--wrap, CMakeLists.txt), so the code under test is the product's, unchanged, and so is the sequence.
// Nothing is really synced: what is lost is the model's to decide. One recorder at a time; the calls may come from any thread, each is recorded in the order in which it was made.
#ifndef HEADRACE_TEST_CACHE_DISK_RECORDER_H_
#define HEADRACE_TEST_CACHE_DISK_RECORDER_H_

#include <memory>
#include <string>

#include "test/cache/disk_model.h"

namespace headrace::test {

class DiskRecorder {
 public:
  // Makes the directory `root` with what `base` holds.
  explicit DiskRecorder(std::string root, DiskState base = DiskModel().now());
  ~DiskRecorder();
  DiskRecorder(const DiskRecorder&) = delete;
  DiskRecorder& operator=(const DiskRecorder&) = delete;

  // A place in the sequence that the test finds again.
  void Mark(const std::string& name);
  size_t changes() const;
  // The model of what was recorded; the recorder goes on.
  DiskModel model() const;
  // "" if the directory holds exactly what the model says, else the first difference: a change that was not recorded.
  std::string Difference() const;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_CACHE_DISK_RECORDER_H_
