// Replays the kept corpus of every fuzz target, and mutates it for half a second each (HEADRACE_FUZZ_SECONDS for longer): regressions show with any
// compiler, without libFuzzer. The seed is printed.
#include <dirent.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "test/fuzz/fuzz_targets.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::fuzz {
namespace {

constexpr size_t kInputMax = 1 << 20;

Bytes BytesOf(const std::string& text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

struct DirCloser {
  void operator()(DIR* d) const { ::closedir(d); }
};

// Files of the corpus, by name.
std::vector<std::pair<std::string, std::string>> Corpus(const std::string& target) {
  const std::string path = std::string(HEADRACE_TESTDATA) + "/fuzz/" + target;
  std::vector<std::pair<std::string, std::string>> out;
  std::unique_ptr<DIR, DirCloser> dir(::opendir(path.c_str()));
  while (dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
    const std::string name = entry->d_name;
    if (name.starts_with('.')) continue;
    auto text = ReadFile(path + "/" + name, kInputMax);
    EXPECT_OK(text);
    if (text.ok()) out.emplace_back(name, *text);
  }
  std::sort(out.begin(), out.end());
  return out;
}

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
                                          "\"chunk\"", "\"zeros\"", "null", "1e9", ",", "\xff", "\\u0000", "\n", "=", "nan"};
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
    if (data.size() > kInputMax) data.resize(kInputMax);
  }

  std::vector<std::string> seeds_;
  std::mt19937_64 random_;
};

class FuzzTest : public ::testing::TestWithParam<Target> {
 protected:
  // Words of parsers about broken input are no news here.
  void SetUp() override { ASSERT_OK(log::Setup("fuzz", "off")); }
};

// Goal: every input that once broke something, and every seed, is fine. A target that finds something aborts; the name of the file was printed then.
TEST_P(FuzzTest, Replay) {
  const auto corpus = Corpus(GetParam().name);
  ASSERT_FALSE(corpus.empty()) << "no corpus for " << GetParam().name;
  for (const auto& [name, data] : corpus) {
    std::printf("%s/%s\n", GetParam().name, name.c_str());
    std::fflush(stdout);
    GetParam().run(BytesOf(data));
  }
}

// Goal: mutations of the corpus are fine as well.
TEST_P(FuzzTest, Mutations) {
  const char* seconds = std::getenv("HEADRACE_FUZZ_SECONDS");
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(seconds != nullptr ? 1000 * std::atoi(seconds) : 500);
  std::vector<std::string> seeds;
  for (auto& [name, data] : Corpus(GetParam().name)) seeds.push_back(std::move(data));
  ASSERT_FALSE(seeds.empty()) << "no corpus for " << GetParam().name;
  Mutator mutator(std::move(seeds));
  uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) GetParam().run(BytesOf(mutator.Next()));
  std::printf("%llu inputs\n", static_cast<unsigned long long>(runs));
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzTest, ::testing::ValuesIn(kTargets), [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace headrace::fuzz
