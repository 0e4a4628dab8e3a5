// gzip and zstd for tests, by zlib and libzstd: written by another library than the one that reads it (ISA-L).
// Users link ZLIB::ZLIB (Gzip) and PkgConfig::ZSTD (Zstd).
#ifndef HEADRACE_TEST_SUPPORT_COMPRESS_H_
#define HEADRACE_TEST_SUPPORT_COMPRESS_H_

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <string>

namespace headrace::test {

// One gzip member without a name.
inline std::string Gzip(const std::string& data, int level = 6) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string in = data;
  std::string out(deflateBound(&stream, in.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// One zstd frame.
inline std::string Zstd(const std::string& data, int level = 3) {
  std::string out(ZSTD_compressBound(data.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), data.data(), data.size(), level));
  return out;
}

}  // namespace headrace::test

#endif  // HEADRACE_TEST_SUPPORT_COMPRESS_H_
