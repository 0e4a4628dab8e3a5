// Tars from mutated bytes: a wrong checksum would stop every parser at the first header.
#ifndef HEADRACE_TEST_FUZZ_TAR_INPUT_H_
#define HEADRACE_TEST_FUZZ_TAR_INPUT_H_

#include <cstdio>
#include <string>
#include <string_view>

namespace headrace::fuzz {

// Sets the checksum of every block that says "ustar", as tar(5) computes it.
inline std::string WithChecksums(std::string_view data) {
  std::string tar(data);
  for (size_t at = 0; at + 512 <= tar.size(); at += 512) {
    if (tar.compare(at + 257, 5, "ustar") != 0) continue;
    tar.replace(at + 148, 8, 8, ' ');
    unsigned sum = 0;
    for (size_t i = at; i < at + 512; ++i) sum += static_cast<unsigned char>(tar[i]);
    char text[8];
    std::snprintf(text, sizeof text, "%06o", sum & 0777777u);
    tar.replace(at + 148, 7, text, 7);
  }
  return tar;
}

}  // namespace headrace::fuzz

#endif  // HEADRACE_TEST_FUZZ_TAR_INPUT_H_
