// test/support/noise.h for the tests of stream/, whose fakes take vectors.
#ifndef HEADRACE_TEST_STREAM_NOISE_H_
#define HEADRACE_TEST_STREAM_NOISE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "test/support/noise.h"

namespace headrace::stream {

using test::Noise;

inline std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

}  // namespace headrace::stream

#endif  // HEADRACE_TEST_STREAM_NOISE_H_
