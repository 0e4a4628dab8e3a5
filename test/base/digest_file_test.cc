// Goal: digests parse strictly; files are replaced whole; removal stays inside its tree and does not follow links.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/file.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace {
namespace {

constexpr char kEmptySha256[] = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(DigestTest, ParsesStrictlyAndPrintsBack) {
  EXPECT_EQ(Digest::Of(std::string_view()).ToString(), kEmptySha256);
  EXPECT_EQ(Digest::Parse(kEmptySha256)->ToString(), kEmptySha256);
  std::string upper = kEmptySha256;
  upper[10] = 'B';
  for (const std::string& bad : {std::string("sha256:"), std::string("sha512:") + (kEmptySha256 + 7), upper,
                                 std::string(kEmptySha256) + "0", std::string("../../etc/passwd")}) {
    EXPECT_CODE(Digest::Parse(bad), StatusCode::kInvalidArgument);
  }
}

TEST(DigestTest, HasherStartsAnewAfterFinish) {
  Sha256 hasher;
  hasher.Update(std::string_view("abc"));
  EXPECT_EQ(hasher.Finish(), Digest::Of(std::string_view("abc")));
  EXPECT_EQ(hasher.Finish().ToString(), kEmptySha256);
}

TEST(FileTest, AtomicWriteReplacesAndLeavesNoTemporary) {
  test::TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir / "f", "one"));
  ASSERT_OK(WriteFileAtomic(dir / "f", "two"));
  EXPECT_EQ(*ReadFile(dir / "f", 100), "two");
  EXPECT_CODE(ReadFile(dir / "f", 2), StatusCode::kResourceExhausted);
  ASSERT_EQ(::unlink((dir / "f").c_str()), 0);
  EXPECT_EQ(::rmdir(dir.path().c_str()), 0);  // nothing else was left in it
  EXPECT_EQ(::mkdir(dir.path().c_str(), 0700), 0);
}

TEST(FileTest, RemoveAllDoesNotFollowLinks) {
  test::TempDir dir;
  ASSERT_OK(MakeDirs(dir / "keep"));
  ASSERT_OK(WriteFileAtomic(dir / "keep/file", "x"));
  ASSERT_OK(MakeDirs(dir / "tree/a/b"));
  ASSERT_EQ(::symlink((dir / "keep").c_str(), (dir / "tree/a/link").c_str()), 0);
  ASSERT_OK(RemoveAll(dir / "tree"));
  EXPECT_OK(ReadFile(dir / "keep/file", 10));
  EXPECT_CODE(ReadFile(dir / "tree/a", 10), StatusCode::kNotFound);
  EXPECT_OK(RemoveAll(dir / "tree"));
}

// Goal: several callers may remove one tree at the same time; none of them sees an error because another was faster.
TEST(FileTest, RemoveAllByManyAtOnce) {
  test::TempDir dir;
  for (int round = 0; round < 100; ++round) {
    for (const char* sub : {"tree/a/b/c", "tree/d", "tree/e/f"}) ASSERT_OK(MakeDirs(dir / sub));
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) threads.emplace_back([&] { EXPECT_OK(RemoveAll(dir / "tree")); });
    for (std::thread& thread : threads) thread.join();
  }
}

// Goal: a file that need not survive a crash of the machine is replaced as a whole all the same.
TEST(FileTest, AtomicWriteWithoutFsync) {
  test::TempDir dir;
  for (const char* text : {"one", "two"}) {
    ASSERT_OK(WriteFileAtomic(dir / "f", text, 0600, Durability::kProcessCrash));
    EXPECT_EQ(*ReadFile(dir / "f", 100), text);
  }
  ASSERT_EQ(::unlink((dir / "f").c_str()), 0);
  EXPECT_EQ(::rmdir(dir.path().c_str()), 0);
  EXPECT_EQ(::mkdir(dir.path().c_str(), 0700), 0);
}

}  // namespace
}  // namespace headrace
