// The main of every test program: GoogleTest's, with the logger made before there are threads.
// spdlog makes it in a library that tsan does not see into: two threads of a test that log for the first time at once
// look like a race there. Our programs log in main first.
#include <gmock/gmock.h>

#include "fusefs/base/log.h"

int main(int argc, char** argv) {
  spdlog::default_logger_raw();
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
