// Runs each fuzz target on mutations of good inputs for a second or so (HEADRACE_FUZZ_SECONDS for longer). The seed is printed.
#include <gtest/gtest.h>
#include <zstd.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/format/bytes.h"
#include "test/format/layer_fixture.h"
#include "test/fuzz/fuzz_targets.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::fuzz {
namespace {

using Target = int (*)(const uint8_t*, size_t);

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)), random_(test::TestSeed()) {}

  std::string Next() {
    std::string data = seeds_[random_() % seeds_.size()];
    for (uint64_t n = 1 + random_() % 4; n > 0; --n) Mutate(data);
    return data;
  }

 private:
  size_t At(const std::string& data) { return data.empty() ? 0 : random_() % data.size(); }

  void Mutate(std::string& data) {
    static const char* const kTokens[] = {"0", "-1", "18446744073709551615", "1152921504606846976", "../", "\"", "{", "[",
                                          "\"chunk\"", "\"zeros\"", "null", "1e9", ",", "\xff", "\\u0000"};
    const size_t at = At(data);
    switch (random_() % 8) {
      case 0: if (!data.empty()) data[at] = static_cast<char>(data[at] ^ (1 << (random_() % 8))); break;
      case 1: if (!data.empty()) data[at] = static_cast<char>(random_()); break;
      case 2: data.resize(at); break;
      case 3: data.erase(at, 1 + random_() % 16); break;
      case 4: data.insert(at, kTokens[random_() % std::size(kTokens)]); break;
      case 5: data.insert(at, data.substr(At(data), random_() % 600)); break;
      case 6: {
        const std::string& other = seeds_[random_() % seeds_.size()];
        data = data.substr(0, at) + other.substr(At(other));
        break;
      }
      default: {  // a number becomes another
        const size_t digit = data.find_first_of("0123456789", at);
        if (digit != std::string::npos) data[digit] = static_cast<char>('0' + random_() % 10);
      }
    }
    if (data.size() > (1 << 20)) data.resize(1 << 20);
  }

  std::vector<std::string> seeds_;
  std::mt19937_64 random_;
};

void RunTarget(Target target, std::vector<std::string> seeds, bool tar_checksums = false) {
  for (const std::string& seed : seeds) target(format::AsBytes(seed).data(), seed.size());
  const char* seconds = std::getenv("HEADRACE_FUZZ_SECONDS");
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(seconds != nullptr ? 1000 * std::atoi(seconds) : 800);
  Mutator mutator(std::move(seeds));
  uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    std::string data = mutator.Next();
    // A wrong checksum would stop the parser at once: half of the inputs get right ones.
    for (size_t at = 0; tar_checksums && runs % 2 == 0 && at + 512 <= data.size(); at += 512) {
      if (data.compare(at + 257, 5, "ustar") == 0) {
        data.replace(at, 512, format::test::Patched(data.substr(at, 512), 0, ""));
      }
    }
    target(format::AsBytes(data).data(), data.size());
  }
  std::printf("%llu inputs\n", static_cast<unsigned long long>(runs));
}

std::vector<std::string> Tars() {
  using namespace format::test;  // NOLINT: the builders of tars
  const std::string name(150, 'n');
  std::vector<std::string> out = {
      TarFile("a", "hello") + TarBlock('5', "d/", 0) + TarBlock('1', "h", 0, "a") + TarBlock('2', "s", 0, "a") + TarEnd(),
      PaxHeader("path", name) + TarFile("p", std::string(70000, 'x')) + PaxHeader("SCHILY.xattr.user.a", "v") +
          TarFile("b", "y") + TarEnd(),
      TarBlock('L', "././@LongLink", 151) + Padded(name + '\0') + TarFile("g", "gnu") + TarEnd(),
      TarFile("a", "1") + TarBlock('1', "b", 0, "a") + TarFile("a", "2") + TarEnd(),
      PaxHeader("GNU.sparse.map", "0,5,5,2") + TarFile("s", "1234567") + TarEnd()};
  std::string sparse = Patched(TarBlock('S', "old", 7), 257, std::string_view("ustar  \0", 8));
  sparse = Patched(sparse, 386, std::string("00000000144\0" "00000000005\0" "00000000454\0" "00000000002\0", 48));
  sparse = Patched(sparse, 483, std::string("00000001000\0", 12));
  out.push_back(sparse + Padded("1234567") + TarEnd());
  return out;
}

std::vector<std::string> Blobs() {
  std::vector<std::string> out;
  for (const std::string& tar : Tars()) {
    auto layer = format::test::MakeLayer(tar);
    EXPECT_OK(layer);
    if (layer.ok()) out.push_back(layer->blob);
  }
  return out;
}

TEST(FuzzTest, Toc) {
  auto golden = ReadFile(std::string(HEADRACE_TESTDATA) + "/format/golden.toc.json", 1 << 20);
  ASSERT_OK(golden);
  const std::string chunked =
      R"({"version":1,"entries":[{"type":"reg","name":"f","size":100,"digest":"sha256:)" + std::string(64, 'a') +
      R"(","offset":50,"endOffset":90,"chunkSize":40,"chunkDigest":"sha256:)" + std::string(64, 'b') +
      R"("},{"type":"chunk","name":"f","offset":60,"chunkSize":60,"chunkOffset":40,"chunkType":"zeros"}]})";
  RunTarget(FuzzToc, {*golden, chunked});
}

TEST(FuzzTest, TocLocation) {
  RunTarget(FuzzTocLocation, {"v1,sha256:" + std::string(64, 'a') + ",100,20,300,200"});
}

TEST(FuzzTest, Tar) { RunTarget(FuzzTar, Tars(), true); }

TEST(FuzzTest, Chunk) {
  std::string frame(2000, '\0');
  const std::string data(1000, 'x');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), data.data(), data.size(), 3));
  RunTarget(FuzzChunk, {frame, "\x28\xB5\x2F\xFD"});
}

TEST(FuzzTest, SeekTable) { RunTarget(FuzzSeekTable, Blobs()); }

TEST(FuzzTest, Decompress) {
  std::vector<std::string> seeds = Blobs();
  seeds.push_back(std::string("\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\x48\xcd\xc9\xc9\x07\0\x86\xa6\x10\x36\x05\0\0\0", 25));
  RunTarget(FuzzDecompress, std::move(seeds));
}

}  // namespace
}  // namespace headrace::fuzz
