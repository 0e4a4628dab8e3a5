// Bytes through the whole of headrace-fused: random trees beside overlayfs, damage on the way, mixed chains.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <random>
#include <thread>

#include "fusefs/base/file.h"
#include "test/daemon/daemon_fixture.h"
#include "test/support/overlay_dirs.h"

namespace headrace::test {
namespace {

class DaemonReadTest : public DaemonFixture {
 protected:
  TreeDump DumpOf(const std::string& path) {
    auto dump = DumpDirectory(path);
    EXPECT_OK(dump);
    return dump.ok() ? *dump : TreeDump();
  }
  // What overlayfs shows for these directories, bottom to top.
  TreeDump Overlay(const std::vector<std::string>& lower, const std::string& name) {
    const std::string target = dir / name;
    EXPECT_OK(MountOverlay(lower, dir / (name + ".empty"), target));
    TreeDump dump = DumpOf(target);
    ::umount2(target.c_str(), MNT_DETACH);
    return dump;
  }
};

// Goal: users of a lazy chain see exactly what overlayfs shows for the extracted layers: names, attributes, links, xattrs, bytes.
TEST_F(DaemonReadTest, RandomTreesLikeOverlayfs) {
  const uint64_t first_seed = TestSeed();
  int id = 1;
  for (uint64_t round = 0; round < 4; ++round) {
    const uint64_t seed = first_seed + round;
    SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed));
    const auto layers = RandomLayers(seed, {.layers = 1 + seed % 5, .entries_per_layer = 60, .file_bytes_max = 300'000});
    auto lower = WriteOverlayDirs(layers, dir / ("layers" + std::to_string(round)));
    ASSERT_OK(lower);
    const std::string top = MountChain(layers, id);
    id += static_cast<int>(layers.size());
    ASSERT_EQ(CompareDumps(DumpOf(top), Overlay(*lower, "o" + std::to_string(round))), "");
    // Again, from what the kernel and the cache remember now.
    ASSERT_EQ(CompareDumps(DumpOf(top), Overlay(*lower, "p" + std::to_string(round))), "");
  }
}

// Goal: the first reader of a large file finds connections: they are opened while the table of contents is fetched, once for an image, and not for small layers.
TEST_F(DaemonReadTest, ConnectionsBeforeTheFirstRead) {
  std::mt19937_64 random(TestSeed());
  std::string weights(20 << 20, '\0');
  for (char& c : weights) c = static_cast<char>(random());
  const PublishedLayer small = Publish(registry, repository, {File("config.json", "{}")});
  const PublishedLayer large = Publish(registry, repository, {File("model.safetensors", weights)});
  const PublishedLayer second = Publish(registry, repository, {File("model-2.safetensors", weights + "x")});
  ASSERT_OK(Mount("1", "", small));
  registry.AddFault({.kind = Fault::Kind::kHold, .path_contains = large.digest.Hex(), .times = -1});
  auto mounting = std::async(std::launch::async, [&] { return Mount("2", "1", large); });
  ASSERT_TRUE(registry.WaitForHeld(17));  // the table's and these
  registry.ClearFaults();
  registry.Release();
  ASSERT_OK(mounting.get());
  const uint64_t warm = registry.counts().blob_gets;
  ASSERT_OK(Mount("3", "2", second));
  EXPECT_LE(registry.counts().blob_gets, warm + 17);  // the table, and what of the first was still under way
  const uint64_t connections = registry.counts().connections;
  const int file = ::open(Path("3/model.safetensors").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  std::string head(1 << 20, '\0');
  EXPECT_EQ(::pread(file, head.data(), head.size(), 0), static_cast<ssize_t>(head.size()));
  EXPECT_LE(registry.counts().connections, connections + 2);  // those that are there were used
  ::close(file);
  EXPECT_TRUE(Slurp(Path("3/model.safetensors")) == weights);
}

// Goal: a lazy segment above ordinary directories gives with overlayfs what all-ordinary directories give.
TEST_F(DaemonReadTest, SegmentAboveOrdinaryDirectories) {
  const uint64_t first_seed = TestSeed();
  int id = 1;
  for (uint64_t round = 0; round < 4; ++round) {
    const uint64_t seed = first_seed + round;
    SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed));
    const auto layers = RandomLayers(seed, {.layers = 3 + seed % 3, .entries_per_layer = 50, .implied_directories = false});
    auto all = WriteOverlayDirs(layers, dir / ("layers" + std::to_string(round)));
    ASSERT_OK(all);
    const size_t split = 1 + seed % (layers.size() - 1);
    const std::vector<TreeLayer> upper(layers.begin() + static_cast<long>(split), layers.end());
    const std::string top = MountChain(upper, id, true);
    id += static_cast<int>(upper.size());
    std::vector<std::string> mixed(all->begin(), all->begin() + static_cast<long>(split));
    mixed.push_back(top);
    const std::string name = "m" + std::to_string(round);
    ASSERT_EQ(CompareDumps(Overlay(mixed, name), Overlay(*all, name + "all"), false), "");
  }
}

// Goal: a container's writable overlay on a lazy chain works: change, append (copy up), remove, whole-file reads before and after.
TEST_F(DaemonReadTest, WritableOverlayOnTop) {
  const std::string big(3 << 20, 'b');
  const std::string lower = MountChain({{Dir("etc"), File("etc/conf", "a=1\n"), File("big", big), File("gone", "x")}});
  const std::string upper = dir / "upper", work = dir / "work", merged = dir / "merged";
  for (const std::string& path : {upper, work, merged}) ASSERT_OK(MakeDirs(path));
  const std::string data = "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work;
  ASSERT_EQ(::mount("overlay", merged.c_str(), "overlay", 0, data.c_str()), 0) << std::strerror(errno);
  int fd = ::open((merged + "/etc/conf").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  ASSERT_GE(fd, 0) << std::strerror(errno);
  EXPECT_EQ(::write(fd, "b=2\n", 4), 4);
  ::close(fd);
  EXPECT_EQ(Slurp(merged + "/etc/conf"), "a=1\nb=2\n");
  EXPECT_EQ(::unlink((merged + "/gone").c_str()), 0);
  EXPECT_EQ(Slurp(merged + "/gone"), "errno " + std::to_string(ENOENT));
  EXPECT_EQ(Slurp(merged + "/big"), big);
  EXPECT_EQ(Slurp(lower + "/etc/conf"), "a=1\n");
  ASSERT_EQ(::umount2(merged.c_str(), 0), 0) << std::strerror(errno);
}

// Goal: a damaged chunk is fetched again, then refused: EIO, counted, never served; when the registry is whole again it is read.
TEST_F(DaemonReadTest, FlippedBitIsNeverServed) {
  Stop();
  options.config.read_deadline = std::chrono::seconds(1);
  Start();
  std::mt19937_64 random(TestSeed());
  std::string bytes(1 << 20, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  auto layer = Publish(registry, repository, {File("f", bytes)}, 256 << 10);
  ASSERT_OK(Mount("1", "", layer));
  // Incompressible: the byte in the middle of the blob's data is in the middle of the file, roughly.
  registry.AddFault({.kind = Fault::Kind::kFlipBit, .path_contains = layer.digest.Hex(), .times = -1, .blob_offset = bytes.size() / 2});
  UniqueFd fd(::open(Path("1/f").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  size_t failed = 0;
  std::string got(64 << 10, '\0');
  for (size_t at = 0; at < bytes.size(); at += got.size()) {
    ssize_t n = ::pread(fd.get(), got.data(), got.size(), static_cast<off_t>(at));
    if (n < 0) {
      EXPECT_EQ(errno, EIO);
      ++failed;
    } else {
      ASSERT_EQ(std::string_view(got).substr(0, static_cast<size_t>(n)), std::string_view(bytes).substr(at, static_cast<size_t>(n)));
    }
  }
  EXPECT_EQ(failed, 4u) << "one chunk of 256 KiB";
  EXPECT_GT(Metric("headrace_chunk_digest_mismatches_total"), 1) << "it was tried again";
  EXPECT_GT(Metric("headrace_fuse_read_errors_total"), 0);
  registry.ClearFaults();
  EXPECT_EQ(Slurp(Path("1/f")), bytes);
}

// A child process that maps the file and compares it: exit status 0 if it is right. Nothing but system calls after fork.
pid_t MapAndCompare(const std::string& path, const std::string& bytes, int flags) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) ::_exit(2);
  void* at = ::mmap(nullptr, bytes.size(), PROT_READ, flags, fd, 0);
  if (at == MAP_FAILED) ::_exit(3);
  ::_exit(std::memcmp(at, bytes.data(), bytes.size()) == 0 ? 0 : 4);
}

// Goal: eight readers of one cold file, scattered and mapped, get the right bytes, and the registry is asked about once for each.
TEST_F(DaemonReadTest, ManyReadersOfOneColdFile) {
  std::mt19937_64 random(TestSeed());
  std::string bytes((12 << 20) + 777, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  auto layer = Publish(registry, repository, {File("f", bytes)}, 1 << 20);
  ASSERT_OK(Mount("1", "", layer));
  // Those that map are processes of their own: mmap(2) of a direct-I/O file waits for pages that are being read and holds the lock of the
  // address space meanwhile, which the threads of the server in this process need (fusefs/kernel/README.md).
  std::vector<pid_t> mappers;
  for (const int flags : {MAP_SHARED, MAP_PRIVATE, MAP_SHARED, MAP_PRIVATE}) {
    mappers.push_back(MapAndCompare(Path("1/f"), bytes, flags));
  }
  std::vector<std::thread> readers;
  for (unsigned t = 0; t < 4; ++t) {
    readers.emplace_back([&, t] {
      UniqueFd fd(::open(Path("1/f").c_str(), O_RDONLY | O_CLOEXEC));
      ASSERT_TRUE(fd.valid());
      std::string piece(300'000, '\0');
      for (size_t i = 0; i * piece.size() < bytes.size(); ++i) {
        size_t offset = ((i * 17 + t) % (bytes.size() / piece.size() + 1)) * piece.size();
        ssize_t n = ::pread(fd.get(), piece.data(), piece.size(), static_cast<off_t>(offset));
        ASSERT_EQ(n, static_cast<ssize_t>(std::min(piece.size(), bytes.size() - offset)));
        ASSERT_TRUE(std::string_view(piece).substr(0, static_cast<size_t>(n)) == std::string_view(bytes).substr(offset, static_cast<size_t>(n)));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  for (const pid_t mapper : mappers) {
    int status = -1;
    ASSERT_EQ(::waitpid(mapper, &status, 0), mapper);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
  }
  EXPECT_LE(Metric("headrace_wire_bytes_total"), static_cast<int64_t>(layer.blob.size()));
  EXPECT_EQ(Metric("headrace_chunk_fetches_total"), 16 + 12);  // the first MiB in 16, the rest by the MiB
  EXPECT_EQ(Metric("headrace_reads_waiting"), 0);
}

}  // namespace
}  // namespace headrace::test
