// For the libFuzzer programs: words of parsers about broken input are no news there.
#include "fusefs/base/log.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  (void)argc, (void)argv;
  return headrace::log::Setup("fuzz", "off").ok() ? 0 : 1;
}
