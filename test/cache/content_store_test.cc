// Goal: chunks that were written are there again, in the same process, in the next one and after a reboot as far as they may be believed;
// complete files get sealed; whatever happens to the files on disk, nothing wrong comes back and nothing crashes.
#include "fusefs/cache/content_store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sched.h>

#include "fusefs/base/file.h"
#include "test/cache/store_fixture.h"

namespace headrace::cache {
namespace {

TEST_F(StoreTest, WrittenChunkIsPresentAndOthersAreNot) {
  auto file = Open();
  Write(*file, 1);
  EXPECT_EQ(file->state(0), ChunkState::kAbsent);
  EXPECT_EQ(file->state(1), ChunkState::kPresent);
  ExpectChunk(*file, 1);
  EXPECT_FALSE(file->complete());
  EXPECT_EQ(Metrics::Get(metrics_.cache_write_bytes), 1000);
}

TEST_F(StoreTest, SameContentIsTheSameObjectWhileItLives) {
  auto a = Open();
  EXPECT_EQ(a, Open());
  EXPECT_EQ(store_->open_contents(), 1u);
  a.reset();
  EXPECT_EQ(store_->open_contents(), 0u);
}

// A process that was killed, a machine or a file system that went down: nobody knows what became of what was not synced.
TEST_F(StoreTest, WhatWasNotSealedIsVerifiedAgain) {
  Write(*Open(), 2);
  for (const bool another_process : {false, true}) {
    if (another_process) Restart();
    auto file = Open();
    EXPECT_EQ(file->state(0), ChunkState::kAbsent);
    EXPECT_EQ(file->state(2), ChunkState::kUnverified);
    ExpectChunk(*file, 2);
    ASSERT_OK(file->Confirm(2, file->give_backs()));
    EXPECT_EQ(file->state(2), ChunkState::kPresent);
  }
  Open()->Drop(2, ChunkState::kUnverified);
  Restart();
  EXPECT_EQ(Open()->state(2), ChunkState::kAbsent);
}

// Chunks of a file that is not complete make room: they are absent, their bytes are the file system's, and whoever read them meanwhile is told.
TEST_F(StoreTest, ChunksAreGivenBack) {
  auto file = Open();
  for (const uint32_t i : {0u, 1u, 2u}) Write(*file, i);
  const uint64_t used = store_->Usage().used;
  const uint64_t epoch = file->epoch();
  EXPECT_EQ(file->GiveBack(1, 3, kChunkSize, 2 * kChunkSize), 2 * kChunkSize);
  EXPECT_EQ(file->state(0), ChunkState::kPresent);
  EXPECT_EQ(file->state(1), ChunkState::kAbsent);
  EXPECT_EQ(file->state(2), ChunkState::kAbsent);
  EXPECT_NE(file->epoch(), epoch);
  std::vector<uint8_t> bytes(kChunkSize);
  EXPECT_CODE(file->ReadPresent(epoch, 0, bytes), StatusCode::kUnavailable);
  EXPECT_LE(store_->Usage().used, used);
  ExpectChunk(*file, 0);
  // Absent ones cannot go, and nothing of a file that is complete does.
  EXPECT_EQ(file->GiveBack(0, 2, 0, 2 * kChunkSize), 0u);
  EXPECT_EQ(file->state(0), ChunkState::kPresent);
  WriteAll(*file);
  EXPECT_EQ(file->GiveBack(0, 1, 0, kChunkSize), 0u);
  ASSERT_TRUE(WaitForSeal(*file));
  EXPECT_EQ(file->GiveBack(0, 1, 0, kChunkSize), 0u);
  for (uint32_t i = 0; i < kChunks; ++i) ExpectChunk(*file, i);
}

TEST_F(StoreTest, WhatIsPinnedIsNotGivenBack) {
  auto file = Open();
  Write(*file, 1);
  ASSERT_OK(store_->Pin("kept", {file->spec().id}));
  EXPECT_EQ(file->GiveBack(1, 2, kChunkSize, kChunkSize), 0u);
  ExpectChunk(*file, 1);
  ASSERT_OK(store_->Unpin("kept"));
  EXPECT_EQ(file->GiveBack(1, 2, kChunkSize, kChunkSize), kChunkSize);
}

// A neighbour that is dropped meanwhile does not keep a chunk from being confirmed: the file would never be sealed.
TEST_F(StoreTest, AChunkIsConfirmedAlthoughAnotherWasDropped) {
  for (uint32_t i = 0; i < 2; ++i) Write(*Open(), i);
  auto file = Open();
  const uint64_t before = file->give_backs();
  ExpectChunk(*file, 0);
  file->Drop(1, ChunkState::kUnverified);
  ASSERT_OK(file->Confirm(0, before));
  EXPECT_EQ(file->state(0), ChunkState::kPresent);
}

// It was read before it was given back, and its bytes are zeros by now.
TEST_F(StoreTest, WhatWasReadBeforeIsNotConfirmedAfterwards) {
  Write(*Open(), 2);
  auto file = Open();
  ASSERT_EQ(file->state(2), ChunkState::kUnverified);
  const uint64_t before = file->give_backs();
  ExpectChunk(*file, 2);
  ASSERT_OK(file->Confirm(2, before));
  ASSERT_EQ(file->GiveBack(2, 3, 2 * kChunkSize, kChunkSize), kChunkSize);
  EXPECT_CODE(file->Confirm(2, before), StatusCode::kUnavailable);
  EXPECT_EQ(file->state(2), ChunkState::kAbsent);
}

// Two find the same unverified chunk wrong, and the first one's new bytes complete the file before the second one says so: a good file that is sealed is not damaged by it.
TEST_F(StoreTest, AnUnverifiedChunkThatOthersBroughtIsNotDropped) {
  auto file = Open();
  WriteAll(*file);
  ASSERT_TRUE(WaitForSeal(*file));
  file->Drop(2, ChunkState::kUnverified);
  EXPECT_TRUE(file->usable());
  EXPECT_TRUE(file->sealed());
  EXPECT_EQ(file->state(2), ChunkState::kPresent);
  file->Drop(2, ChunkState::kPresent);
  EXPECT_FALSE(file->usable());
}

TEST_F(StoreTest, CompleteFileIsSealedAndBelievedAfterAReboot) {
  {
    auto file = Open();
    WriteAll(*file);
    ASSERT_TRUE(WaitForSeal(*file));
    EXPECT_EQ(fcntl(file->backing_fd(), F_GETFL) & O_ACCMODE, O_RDONLY);
    struct stat st;
    ASSERT_EQ(fstat(file->backing_fd(), &st), 0);
    EXPECT_TRUE(S_ISREG(st.st_mode));
    EXPECT_EQ(static_cast<uint64_t>(st.st_size), kSize);
  }
  EXPECT_EQ(Metrics::Get(metrics_.cache_sealed_files), 1);
  Restart();
  auto file = Open();
  EXPECT_TRUE(file->sealed());
  EXPECT_TRUE(file->complete());
  for (uint32_t i = 0; i < kChunks; ++i) {
    EXPECT_EQ(file->state(i), ChunkState::kPresent);
    ExpectChunk(*file, i);
  }
  ASSERT_OK(file->WriteChunk(0, 0, ChunkBytes(0)));  // nothing to do
  ASSERT_OK(file->Confirm(0, file->give_backs()));
}

// The process ended between the last chunk and the seal: the map has all marks and no seal.
TEST_F(StoreTest, CompleteFileWithoutSealIsSealedWhenItIsVerified) {
  {
    auto file = Open();
    WriteAll(*file);
    ASSERT_TRUE(WaitForSeal(*file));
  }
  auto fd = OpenFile(Path(".map"), O_RDWR);
  ASSERT_OK(fd);
  ASSERT_OK(PwriteFull(fd->get(), std::vector<uint8_t>(64), 128));
  Restart();
  auto file = Open();
  EXPECT_FALSE(file->complete());
  for (uint32_t i = 0; i < kChunks; ++i) ASSERT_OK(file->Confirm(i, file->give_backs()));
  EXPECT_TRUE(WaitForSeal(*file));
}

// The process that hashed and placed all of it need not do so again; any other, or if somebody touched it: all unverified.
TEST_F(StoreTest, PlacedContentIsSealedAtTheNextOpenOfThisProcess) {
  ASSERT_OK(store_->Put(spec_, bytes_));
  EXPECT_TRUE(WaitForSeal(*Open()));
  for (const bool another_process : {false, true}) {
    SCOPED_TRACE(another_process);
    spec_.id = Digest::Of("placed " + std::to_string(another_process));
    ASSERT_OK(store_->Put(spec_, bytes_));
    if (another_process) {
      Restart();
    } else {
      ASSERT_EQ(chmod(Path(".data").c_str(), 0400), 0);
    }
    auto file = Open();
    for (uint32_t i = 0; i < kChunks; ++i) EXPECT_EQ(file->state(i), ChunkState::kUnverified);
  }
}

TEST_F(StoreTest, ZerosNeedNoBytes) {
  auto file = Open();
  ASSERT_OK(file->MarkHole(1, kChunkSize, kChunkSize));
  for (uint32_t i : {0u, 2u, 3u}) Write(*file, i);
  ASSERT_TRUE(WaitForSeal(*file));
  std::vector<uint8_t> got(kChunkSize, 1);
  ASSERT_OK(file->Read(kChunkSize, got));
  EXPECT_EQ(got, std::vector<uint8_t>(kChunkSize));
}

TEST_F(StoreTest, PeekSeesWithoutMaking) {
  EXPECT_TRUE(store_->Peek(spec_).empty());
  EXPECT_NE(access(Path(".map").c_str(), F_OK), 0);
  {
    auto file = Open();
    Write(*file, 1);
    EXPECT_EQ(store_->Peek(spec_), std::vector<bool>({false, true, false, false}));
  }
  EXPECT_EQ(store_->Peek(spec_), std::vector<bool>({false, true, false, false}));
  WriteAll(*Open());
  Restart();
  EXPECT_EQ(store_->Peek(spec_), std::vector<bool>(kChunks, true));
}

TEST_F(StoreTest, DifferentCutsAreDifferentFiles) {
  Write(*Open(), 0);
  spec_.id = Digest::Of("the same file, cut otherwise");
  spec_.chunk_count = 2;
  EXPECT_EQ(Open()->state(0), ChunkState::kAbsent);
}

// -- files that are not what they were

TEST_F(StoreTest, TruncatedDataFileIsFoundWhileOpen) {
  auto file = Open();
  Write(*file, 0);
  Write(*file, 2);
  ASSERT_EQ(truncate(Path(".data").c_str(), 2500), 0);
  std::vector<uint8_t> got(kChunkSize);
  EXPECT_CODE(file->Read(2 * kChunkSize, got), StatusCode::kDataLoss);
  EXPECT_FALSE(file->usable());
  for (uint32_t i = 0; i < kChunks; ++i) EXPECT_EQ(file->state(i), ChunkState::kAbsent);
  EXPECT_FALSE(file->WriteChunk(0, 0, ChunkBytes(0)).ok());
  EXPECT_EQ(Metrics::Get(metrics_.cache_read_errors), 1);
  auto anew = Open();  // while the damaged one is still held
  ASSERT_NE(anew, file);
  Write(*anew, 0);
  ExpectChunk(*anew, 0);
}

// Whoever changes bytes of a sealed file cannot do it unseen: the file is compared with its digests again before anything of it is believed.
TEST_F(StoreTest, ATouchedSealedFileIsVerifiedAgain) {
  for (const bool while_open : {false, true}) {
    SCOPED_TRACE(while_open);
    auto file = Open();
    for (uint32_t i = 0; i < kChunks; ++i) {
      if (file->state(i) == ChunkState::kUnverified) file->Drop(i, ChunkState::kUnverified);
    }
    WriteAll(*file);
    ASSERT_TRUE(WaitForSeal(*file));
    EXPECT_TRUE(file->Untouched());
    EXPECT_EQ(Open(), file);
    if (!while_open) {
      file.reset();
      Restart();
    }
    {
      auto fd = OpenFile(Path(".data"), O_WRONLY);
      ASSERT_OK(fd);
      ASSERT_OK(PwriteFull(fd->get(), std::vector<uint8_t>{0x5a}, 1500));
    }
    auto anew = Open();
    ASSERT_NE(anew, file);
    EXPECT_TRUE(!file || !file->usable());
    EXPECT_FALSE(anew->sealed());
    for (uint32_t i = 0; i < kChunks; ++i) EXPECT_EQ(anew->state(i), ChunkState::kUnverified);
    // What did not change is confirmed, the rest fetched again; then it is sealed again.
    for (const uint32_t i : {0u, 2u, 3u}) {
      ExpectChunk(*anew, i);
      ASSERT_OK(anew->Confirm(i, anew->give_backs()));
    }
    anew->Drop(1, ChunkState::kUnverified);
    Write(*anew, 1);
    ASSERT_TRUE(WaitForSeal(*anew));
    ExpectChunk(*anew, 1);
    file.reset();
    anew.reset();
    Restart();
    EXPECT_TRUE(Open()->sealed());
  }
}

// Neither served nor sealed: what somebody else wrote into a file that is not sealed yet.
TEST_F(StoreTest, ATouchedUnsealedFileIsVerifiedAgain) {
  auto file = Open();
  for (const uint32_t i : {0u, 1u, 2u}) Write(*file, i);
  std::vector<uint8_t> got(kChunkSize);
  uint64_t epoch = file->epoch();
  ASSERT_OK(file->ReadPresent(epoch, kChunkSize, got));
  auto fd = OpenFile(Path(".data"), O_WRONLY);
  ASSERT_OK(fd);
  ASSERT_OK(PwriteFull(fd->get(), std::vector<uint8_t>{0x5a}, 1500));
  EXPECT_FALSE(file->ReadPresent(epoch, kChunkSize, got).ok());
  EXPECT_NE(file->epoch(), epoch);
  // Who had seen it present before, and reads only now, is told as well.
  EXPECT_FALSE(file->ReadPresent(epoch, 0, got).ok());
  for (const uint32_t i : {0u, 1u, 2u}) EXPECT_EQ(file->state(i), ChunkState::kUnverified);
  for (const uint32_t i : {0u, 2u}) {
    ExpectChunk(*file, i);
    ASSERT_OK(file->Confirm(i, file->give_backs()));
  }
  // Once more, and a write of ours comes before any read.
  ASSERT_OK(PwriteFull(fd->get(), std::vector<uint8_t>{0x5a}, 2500));
  Write(*file, 3);
  EXPECT_EQ(file->state(2), ChunkState::kUnverified);
  EXPECT_EQ(file->state(3), ChunkState::kPresent);
  ASSERT_OK(file->Confirm(0, file->give_backs()));
  for (const uint32_t i : {1u, 2u}) {
    file->Drop(i, ChunkState::kUnverified);
    Write(*file, i);
  }
  ASSERT_TRUE(WaitForSeal(*file));
  for (uint32_t i = 0; i < kChunks; ++i) ExpectChunk(*file, i);
  epoch = file->epoch();
  ASSERT_OK(file->ReadPresent(epoch, 0, got));
  // And of a sealed file that this process serves.
  ASSERT_OK(PwriteFull(fd->get(), std::vector<uint8_t>{0x5a}, 2500));
  EXPECT_FALSE(file->ReadPresent(epoch, 2 * kChunkSize, got).ok());
  EXPECT_FALSE(file->usable());
}

// A seal of the format before it named the data file's state: nothing is lost, everything is verified again.
TEST_F(StoreTest, ASealWithoutIdentityIsVerifiedAgain) {
  {
    auto file = Open();
    WriteAll(*file);
    ASSERT_TRUE(WaitForSeal(*file));
  }
  ASSERT_TRUE(WaitUntilUnused(Path(".map")));
  auto fd = OpenFile(Path(".map"), O_RDWR);
  ASSERT_OK(fd);
  ASSERT_OK(PwriteFull(fd->get(), std::vector<uint8_t>(40), 144));
  auto file = Open();
  EXPECT_FALSE(file->sealed());
  for (uint32_t i = 0; i < kChunks; ++i) EXPECT_EQ(file->state(i), ChunkState::kUnverified);
}

// A write beyond the cut would turn the lost chunks into holes that look like data.
TEST_F(StoreTest, TruncatedDataFileIsFoundByAWrite) {
  auto file = Open();
  Write(*file, 0);
  ASSERT_EQ(truncate(Path(".data").c_str(), 0), 0);
  EXPECT_FALSE(file->WriteChunk(2, 2 * kChunkSize, ChunkBytes(2)).ok());
  EXPECT_EQ(file->state(0), ChunkState::kAbsent);
}

TEST_F(StoreTest, TruncatedOrDeletedFilesAreBegunAnewAtOpen) {
  for (const bool seal : {false, true}) {
    for (const std::string extension : {".data", ".map"}) {
      for (const int cut : {-1, 0, 100, 200}) {
        SCOPED_TRACE(extension + " cut to " + std::to_string(cut) + (seal ? " sealed" : ""));
        {
          auto file = Open();
          Write(*file, 0);
          if (seal) {
            WriteAll(*file);
            ASSERT_TRUE(WaitForSeal(*file));
          }
        }
        Restart();
        if (cut < 0) {
          ASSERT_EQ(unlink(Path(extension).c_str()), 0);
        } else {
          ASSERT_EQ(truncate(Path(extension).c_str(), cut), 0);
        }
        auto file = Open();
        ASSERT_TRUE(file);
        EXPECT_FALSE(file->sealed());
        for (uint32_t i = 0; i < kChunks; ++i) EXPECT_EQ(file->state(i), ChunkState::kAbsent);
        Write(*file, 1);
        ExpectChunk(*file, 1);
      }
    }
  }
}

TEST_F(StoreTest, DeletedWhileOpenGoesOnAndBeginsAnewLater) {
  auto file = Open();
  Write(*file, 0);
  ASSERT_EQ(unlink(Path(".data").c_str()), 0);
  Write(*file, 1);
  ExpectChunk(*file, 0);
  file.reset();
  EXPECT_EQ(Open()->state(0), ChunkState::kAbsent);
}

TEST_F(StoreTest, ASymbolicLinkInPlaceOfTheDataFileIsNotFollowed) {
  {
    auto file = Open();
    WriteAll(*file);
    ASSERT_TRUE(WaitForSeal(*file));
  }
  ASSERT_TRUE(WaitUntilUnused(Path(".map")));
  const std::string other = dir_ / "other";
  ASSERT_OK(WriteFileAtomic(other, std::string(kSize, 'x')));
  ASSERT_EQ(unlink(Path(".data").c_str()), 0);
  ASSERT_EQ(symlink(other.c_str(), Path(".data").c_str()), 0);
  EXPECT_EQ(Open()->state(0), ChunkState::kAbsent);
  struct stat st;
  ASSERT_EQ(stat(other.c_str(), &st), 0);
  EXPECT_EQ(static_cast<uint64_t>(st.st_size), kSize);
}

// Two processes on one directory: the second verifies what is there and does not begin anew what the first one uses.
TEST_F(StoreTest, ASecondStoreSharesTheFiles) {
  auto file = Open();
  Write(*file, 0);
  auto other = ContentStore::Create({.root = dir_ / "cache"}, metrics_);
  ASSERT_OK(other);
  auto theirs = (*other)->Open(spec_);
  ASSERT_OK(theirs);
  EXPECT_EQ((*theirs)->state(0), ChunkState::kUnverified);
  theirs->reset();
  ASSERT_EQ(truncate(Path(".map").c_str(), 10), 0);
  EXPECT_FALSE((*other)->Open(spec_).ok());
  file.reset();
  EXPECT_OK((*other)->Open(spec_));
}

// -- a disk that refuses

TEST_F(StoreTest, FileTooLargeForTheDiskDegrades) {
  signal(SIGXFSZ, SIG_IGN);
  auto file = Open();
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1500;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status failed = file->WriteChunk(2, 2 * kChunkSize, ChunkBytes(2));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(file->state(2), ChunkState::kAbsent);
  EXPECT_EQ(Metrics::Get(metrics_.cache_write_errors), 1);
  EXPECT_TRUE(file->usable());
  Write(*file, 2);
  ExpectChunk(*file, 2);
}

TEST_F(StoreTest, WritingRestsAfterAFailure) {
  store_.reset();
  auto store = ContentStore::Create({.root = dir_ / "c2", .write_pause = std::chrono::hours(1)}, metrics_);
  ASSERT_OK(store);
  auto file = (*store)->Open(spec_);
  ASSERT_OK(file);
  ASSERT_EQ(truncate((dir_ / "c2").append("/").append(Path(".data").substr(dir_.path().size() + 7)).c_str(), 1), 0);
  EXPECT_FALSE((*file)->WriteChunk(0, 0, ChunkBytes(0)).ok());
  spec_.id = Digest::Of("another");
  auto other = (*store)->Open(spec_);
  ASSERT_OK(other);
  EXPECT_CODE((*other)->WriteChunk(0, 0, ChunkBytes(0)), StatusCode::kUnavailable);
  EXPECT_EQ(Metrics::Get(metrics_.cache_write_errors), 1);
}

TEST_F(StoreTest, FullDiskDegradesAndRecovers) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to mount a small tmpfs";
  std::string skip;
  // In a thread of its own, with a mount namespace of its own: nothing of it is seen outside.
  std::thread([&] {
    const std::string mount_point = dir_ / "full";
    ASSERT_OK(MakeDirs(mount_point));
    if (unshare(CLONE_FS | CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=64k") != 0) {
      skip = "no mount namespace";
      return;
    }
    {
      auto store = ContentStore::Create({.root = mount_point, .write_pause = std::chrono::milliseconds(0)}, metrics_);
      ASSERT_OK(store);
      spec_.size = 4 * 40'000;
      auto file = (*store)->Open(spec_);
      ASSERT_OK(file);
      const std::vector<uint8_t> big(40'000, 7);
      ASSERT_OK((*file)->WriteChunk(0, 0, big));
      const Status full = (*file)->WriteChunk(1, 40'000, big);
      EXPECT_EQ(full.errno_override(), ENOSPC) << full.ToString();
      EXPECT_EQ((*file)->state(1), ChunkState::kAbsent);
      EXPECT_EQ((*file)->state(0), ChunkState::kPresent);
      EXPECT_GE(Metrics::Get(metrics_.cache_write_errors), 1);
      ASSERT_EQ(mount("tmpfs", mount_point.c_str(), "tmpfs", MS_REMOUNT, "size=1m"), 0);
      EXPECT_OK((*file)->WriteChunk(1, 40'000, big));
    }
    umount2(mount_point.c_str(), MNT_DETACH);
  }).join();
  if (!skip.empty()) GTEST_SKIP() << skip;
}

TEST_F(StoreTest, ManyThreadsOpenAndWriteTheSameContents) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([this, t] {
      for (unsigned round = 0; round < 50; ++round) {
        ContentSpec spec = spec_;
        spec.id = Digest::Of("content " + std::to_string((round + t) % 5));
        auto file = store_->Open(spec);
        ASSERT_OK(file);
        const uint32_t i = (round + t) % kChunks;
        ASSERT_OK((*file)->WriteChunk(i, i * kChunkSize, ChunkBytes(i)));
        ExpectChunk(**file, i);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace headrace::cache
