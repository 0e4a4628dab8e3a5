// Goal: lanes give the digests that OpenSSL gives, alone and together, for every length, split and engine; a copy goes its own way.
#include "fusefs/base/sha256_lane.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "test/support/temp_dir.h"

namespace headrace {
namespace {

using Engine = Sha256Lane::Engine;

std::vector<uint8_t> RandomBytes(std::mt19937_64& random, size_t size) {
  std::vector<uint8_t> out(size);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random());
  return out;
}

class Sha256LaneTest : public ::testing::TestWithParam<Engine> {};

// Goal: both paddings at the end (one block, two blocks), and every number of bytes left over.
TEST_P(Sha256LaneTest, EveryLengthAroundABlock) {
  std::mt19937_64 random(test::TestSeed());
  const std::vector<uint8_t> data = RandomBytes(random, 300);
  Sha256Lane lane(GetParam());
  for (size_t size = 0; size <= data.size(); ++size) {
    const auto part = std::span(data).first(size);
    lane.Update(part);
    ASSERT_EQ(lane.Finish(), Digest::Of(part)) << size;
  }
}

// Goal: lanes that begin at different bytes of one stream, as tar, file and chunk do, whatever the pieces.
TEST_P(Sha256LaneTest, TogetherInAnyPieces) {
  std::mt19937_64 random(test::TestSeed());
  for (int round = 0; round < 300; ++round) {
    const std::vector<uint8_t> data = RandomBytes(random, random() % 5000);
    const size_t lanes = random() % Sha256Lane::kTogetherMax + 1;
    std::vector<Sha256Lane> hashers(lanes, Sha256Lane(GetParam()));
    std::vector<size_t> begin(lanes);
    for (size_t& b : begin) b = data.empty() ? 0 : random() % data.size() / (random() % 2 == 0 ? 64 : 1) * (random() % 2 == 0 ? 64 : 1);
    for (size_t& b : begin) b = std::min(b, data.size());
    for (size_t done = 0; done < data.size();) {
      // A piece ends where another lane begins, and sometimes earlier.
      size_t end = random() % 3 == 0 ? done + random() % 200 : data.size();
      std::vector<Sha256Lane*> now;
      for (size_t i = 0; i < lanes; ++i) {
        if (begin[i] > done) end = std::min(end, begin[i]);
        if (begin[i] <= done) now.push_back(&hashers[i]);
      }
      end = std::min(end, data.size());
      UpdateLanes(now, std::span(data).subspan(done, end - done));
      done = end;
    }
    for (size_t i = 0; i < lanes; ++i) {
      ASSERT_EQ(hashers[i].Finish(), Digest::Of(std::span(data).subspan(begin[i]))) << "round " << round << ", lane " << i;
    }
  }
}

TEST_P(Sha256LaneTest, ACopyGoesItsOwnWay) {
  std::mt19937_64 random(test::TestSeed());
  const std::vector<uint8_t> data = RandomBytes(random, 1000);
  for (size_t cut : {0, 1, 63, 64, 65, 128, 999}) {
    Sha256Lane whole(GetParam());
    whole.Update(std::span(data).first(cut));
    Sha256Lane part = whole;
    whole.Update(std::span(data).subspan(cut));
    EXPECT_EQ(part.Finish(), Digest::Of(std::span(data).first(cut)));
    EXPECT_EQ(whole.Finish(), Digest::Of(std::span<const uint8_t>(data)));
  }
}

// Goal: the length field of a long message; 512 MiB - 1 byte and beyond need more than 32 bits of it.
TEST_P(Sha256LaneTest, LongMessage) {
  const std::vector<uint8_t> piece(1 << 20, 0xa5);
  Sha256 control;
  Sha256Lane lane(GetParam());
  for (int i = 0; i < 520; ++i) {
    lane.Update(piece);
    control.Update(std::span<const uint8_t>(piece));
  }
  EXPECT_EQ(lane.Finish(), control.Finish());
}

// Goal: two messages at once, of any two lengths.
TEST(DigestsOfTwoTest, EachHasItsOwn) {
  std::mt19937_64 random(test::TestSeed());
  for (int round = 0; round < 1000; ++round) {
    const std::vector<uint8_t> a = RandomBytes(random, random() % 700);
    const std::vector<uint8_t> b = RandomBytes(random, round % 3 == 0 ? a.size() : random() % 700);
    const std::array<Digest, 2> both = DigestsOfTwo(a, b);
    ASSERT_EQ(both[0], Digest::Of(std::span<const uint8_t>(a))) << a.size() << " and " << b.size();
    ASSERT_EQ(both[1], Digest::Of(std::span<const uint8_t>(b))) << a.size() << " and " << b.size();
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, Sha256LaneTest, ::testing::Values(Engine::kFastest, Engine::kOpenSsl),
                         [](const auto& engine) { return engine.param == Engine::kFastest ? "Fastest" : "OpenSsl"; });

}  // namespace
}  // namespace headrace
