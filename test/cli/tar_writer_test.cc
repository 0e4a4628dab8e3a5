// Goal: what TarWriter writes is read back, entry for entry, by GNU tar and by our own reader, and is the same every time.
#include "fusefs/format/tar_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "fusefs/base/file.h"
#include "fusefs/format/tar_reader.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::format {
namespace {

using test::TempDir;

Entry File(std::string name, uint64_t size) {
  Entry e;
  e.name = std::move(name);
  e.size = size;
  e.mode = 0644;
  return e;
}

Entry Other(EntryType type, std::string name, std::string target = "") {
  Entry e;
  e.type = type;
  e.name = std::move(name);
  e.link_target = std::move(target);
  e.mode = type == EntryType::kSymlink ? 0777 : 0755;
  return e;
}

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class TarWriterTest : public ::testing::Test {
 protected:
  TarWriterTest()
      : writer_([this](std::span<const uint8_t> data) {
          tar_.append(reinterpret_cast<const char*>(data.data()), data.size());
          return OkStatus();
        }) {}

  void AddFile(Entry entry, std::string_view content) {
    entry.size = content.size();
    ASSERT_OK(writer_.Add(entry));
    ASSERT_OK(writer_.Data(Bytes(content)));
  }

  // What GNU tar says about the archive.
  std::string RunTar(const std::string& arguments) {
    EXPECT_OK(WriteFileAtomic(dir_ / "a.tar", tar_));
    const std::string command = "cd " + dir_.path() + " && LC_ALL=C.UTF-8 TZ=UTC tar " + arguments + " > out 2> err";
    const int code = std::system(command.c_str());
    EXPECT_EQ(code, 0) << ReadFile(dir_ / "err", 1 << 20).value();
    EXPECT_EQ(ReadFile(dir_ / "err", 1 << 20).value(), "");
    return ReadFile(dir_ / "out", 1 << 24).value();
  }

  TempDir dir_;
  std::string tar_;
  TarWriter writer_;
};

struct Recorder : TarReader::Handler {
  std::vector<TarEntry> entries;
  std::vector<std::string> contents;
  Status OnEntry(const TarEntry& entry) override {
    entries.push_back(entry);
    contents.emplace_back();
    return {};
  }
  Status OnContent(std::span<const uint8_t> bytes) override {
    contents.back().append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }
};

// Every type of entry, without anything that needs PAX: GNU tar lists them as meant and there is no 'x' header.
TEST_F(TarWriterTest, GnuTarListsEveryType) {
  ASSERT_OK(writer_.Add(Other(EntryType::kDirectory, "d")));
  AddFile(File("d/f", 0), "hello");
  ASSERT_OK(writer_.Add(Other(EntryType::kHardlink, "d/h", "d/f")));
  ASSERT_OK(writer_.Add(Other(EntryType::kSymlink, "d/s", "../elsewhere")));
  ASSERT_OK(writer_.Add(Other(EntryType::kFifo, "d/p")));
  Entry device = Other(EntryType::kCharDevice, "d/null");
  device.dev_major = 1;
  device.dev_minor = 3;
  ASSERT_OK(writer_.Add(device));
  ASSERT_OK(writer_.Finish());
  EXPECT_EQ(RunTar("--numeric-owner --full-time -tvf a.tar"),
            "drwxr-xr-x 0/0               0 1970-01-01 00:00:00 d/\n"
            "-rw-r--r-- 0/0               5 1970-01-01 00:00:00 d/f\n"
            "hrwxr-xr-x 0/0               0 1970-01-01 00:00:00 d/h link to d/f\n"
            "lrwxrwxrwx 0/0               0 1970-01-01 00:00:00 d/s -> ../elsewhere\n"
            "prwxr-xr-x 0/0               0 1970-01-01 00:00:00 d/p\n"
            "crwxr-xr-x 0/0             1,3 1970-01-01 00:00:00 d/null\n");
  EXPECT_EQ(tar_.find("PaxHeaders"), std::string::npos);
  EXPECT_EQ(tar_.size() % 512, 0u);
}

// Names around the limits of name (100) and prefix (155), and beyond them, come back from GNU tar to the byte.
TEST_F(TarWriterTest, LongNames) {
  std::string expected;
  for (size_t length : {99u, 100u, 101u, 155u, 156u, 200u, 255u, 256u, 257u, 300u, 1000u, 4000u}) {
    std::string name;
    while (name.size() < length) name += name.size() % 50 == 49 ? '/' : static_cast<char>('a' + name.size() % 26);
    if (name.back() == '/') name.back() = 'z';
    AddFile(File(name, 0), "x");
    expected += name + "\n";
    Entry dir = Other(EntryType::kDirectory, name + "d");
    ASSERT_OK(writer_.Add(dir));
    expected += name + "d/\n";
  }
  ASSERT_OK(writer_.Finish());
  EXPECT_EQ(RunTar("-tf a.tar"), expected);
}

// One component too long for a prefix split must go through PAX; one that splits exactly must not.
TEST_F(TarWriterTest, PaxOnlyWhereUstarCannotSayIt) {
  AddFile(File(std::string(155, 'p') + "/" + std::string(100, 'n'), 0), "");
  EXPECT_EQ(tar_.find("PaxHeaders"), std::string::npos);
  AddFile(File(std::string(101, 'n'), 0), "");
  EXPECT_NE(tar_.find("PaxHeaders"), std::string::npos);
}

// Odd names, xattrs with binary values, large ids, times before 1970 and with nanoseconds come back from our reader as they went in.
TEST_F(TarWriterTest, OwnReaderGivesTheEntriesBack) {
  Entry odd = File("d\xC3\xA9j\xC3\xA0/new\nline \\ \"q\"", 0);
  odd.uid = 4'000'000'000;
  odd.gid = 3'000'000;
  odd.mode = 04755;
  odd.mtime_s = -2;
  odd.mtime_ns = 750'000'000;
  odd.xattrs = {{"security.capability", std::string("\x01\x00\x00\x02=\n\xFF", 7)}, {"user.x", ""}};
  AddFile(odd, std::string(1000, 'c'));
  AddFile(File("not-utf8-\xFF\xFE", 0), "");
  Entry link = Other(EntryType::kSymlink, "l", std::string(3000, 't'));
  ASSERT_OK(writer_.Add(link));
  ASSERT_OK(writer_.Finish());

  Recorder recorder;
  TarReader reader(recorder);
  ASSERT_OK(reader.Write(Bytes(tar_)));
  ASSERT_OK(reader.Finish());
  ASSERT_EQ(recorder.entries.size(), 3u);
  const TarEntry& e = recorder.entries[0];
  EXPECT_EQ(e.name, odd.name);
  EXPECT_EQ(e.uid, 4'000'000'000);
  EXPECT_EQ(e.gid, 3'000'000);
  EXPECT_EQ(e.mode, 04755);
  EXPECT_EQ(e.mtime.seconds, -2);
  EXPECT_EQ(e.mtime.nanoseconds, 750'000'000u);
  EXPECT_EQ(e.xattrs, odd.xattrs);
  EXPECT_EQ(recorder.contents[0], std::string(1000, 'c'));
  EXPECT_EQ(recorder.entries[1].name, "not-utf8-\xFF\xFE");
  EXPECT_EQ(recorder.entries[2].link_target, link.link_target);
}

// A size above 8 GiB is in a PAX record; the content is not written in this test, only announced.
TEST_F(TarWriterTest, SizeOfNineGibibytes) {
  ASSERT_OK(writer_.Add(File("big", 9ull << 30)));
  EXPECT_NE(tar_.find("19 size=9663676416\n"), std::string::npos);
  EXPECT_CODE(writer_.Finish(), StatusCode::kFailedPrecondition);  // its bytes did not come
}

TEST_F(TarWriterTest, RefusesWhatATarCannotHold) {
  EXPECT_CODE(writer_.Add(Other(EntryType::kSymlink, "s", "")), StatusCode::kInvalidArgument);
  EXPECT_CODE(writer_.Add(File(std::string("a\0b", 3), 0)), StatusCode::kInvalidArgument);
  Entry bad_xattr = File("f", 0);
  bad_xattr.xattrs = {{"user.a=b", "v"}};
  EXPECT_CODE(writer_.Add(bad_xattr), StatusCode::kInvalidArgument);
  ASSERT_OK(writer_.Add(File("f", 2)));
  EXPECT_CODE(writer_.Data(Bytes("123")), StatusCode::kFailedPrecondition);
  EXPECT_CODE(writer_.Add(File("g", 0)), StatusCode::kFailedPrecondition);
}

// The sink's error comes back.
TEST(TarWriterSinkTest, ErrorOfTheSink) {
  TarWriter writer([](std::span<const uint8_t>) { return UnavailableError("full"); });
  EXPECT_CODE(writer.Add(File("f", 0)), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace headrace::format
