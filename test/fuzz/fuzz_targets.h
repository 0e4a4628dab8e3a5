// Fuzz targets: each takes any bytes, must not crash, hang or take unbounded memory, and aborts if a promise of the format is broken.
// The signature is libFuzzer's. fuzz_test runs them on mutations of good inputs for a few seconds; a clang build with
// HEADRACE_LIBFUZZER=ON makes a libFuzzer program of each (fuzz_toc, fuzz_tar, ...).
#ifndef HEADRACE_TEST_FUZZ_FUZZ_TARGETS_H_
#define HEADRACE_TEST_FUZZ_FUZZ_TARGETS_H_

#include <cstddef>
#include <cstdint>

namespace headrace::fuzz {

int FuzzToc(const uint8_t* data, size_t size);          // JSON of a table of contents
int FuzzTocLocation(const uint8_t* data, size_t size);  // text of the label
int FuzzTar(const uint8_t* data, size_t size);          // a tar for the layer writer
int FuzzChunk(const uint8_t* data, size_t size);        // zstd frames of a chunk
int FuzzSeekTable(const uint8_t* data, size_t size);    // end of a blob: seek table and footer
int FuzzDecompress(const uint8_t* data, size_t size);   // a layer of any compression

}  // namespace headrace::fuzz

#endif  // HEADRACE_TEST_FUZZ_FUZZ_TARGETS_H_
