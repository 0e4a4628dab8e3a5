// Operations that map files.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "integration/tools/fs/stress.h"

namespace headrace::fs {
namespace {

constexpr uint64_t kPage = 4096;

struct Mapping {
  const TreeEntry& entry;
  uint64_t offset;  // in the file
  size_t size;      // of the file's bytes in it
  char* at;

  size_t whole_pages() const { return (size + kPage - 1) / kPage * kPage; }
};

std::string At(const char* what, const Mapping& map, size_t place) {
  return std::string(what) + " " + map.entry.path + " at " + std::to_string(map.offset + place);
}

void Touch(Scene& scene, const Mapping& map) {
  for (uint64_t left = 1 + scene.random.Below(8); left > 0; --left) {
    const size_t place = scene.random.Below(map.size);
    const size_t sizes[] = {1, 100, kPage, 50'000};
    const size_t size = std::min(scene.random.Of(sizes), map.size - place);
    scene.log->Bytes(At("mapped", map, place), map.at + place, size);
  }
  // What the last page has behind the end of the file is zero.
  const size_t behind = map.whole_pages() - map.size;
  if (map.offset + map.size == map.entry.size) scene.log->Bytes(At("behind the end", map, map.size), map.at + map.size, behind);
}

void Advise(Scene& scene, const Mapping& map) {
  const int advices[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, 999};
  const int advice = scene.random.Of(advices);
  const size_t page = scene.random.Below(map.whole_pages() / kPage) * kPage;
  scene.log->Call(At("madvise", map, page) + " " + std::to_string(advice), ::madvise(map.at + page, map.whole_pages() - page, advice));
  if (scene.random.OneIn(3)) scene.log->Call(At("msync", map, 0), ::msync(map.at, map.whole_pages(), MS_SYNC));
}

// A private page that is written to is a copy: the file keeps its bytes.
void WritePrivately(Scene& scene, const Mapping& map, int fd) {
  const size_t place = scene.random.Below(map.size);
  map.at[place] = static_cast<char>(map.at[place] ^ 0x55);
  char byte = 0;
  if (::pread(fd, &byte, 1, static_cast<off_t>(map.offset + place)) != 1) byte = '#';
  scene.log->Bytes(At("written to privately", map, place), &byte, 1);
  scene.log->Bytes(At("the private copy", map, place), map.at + place, 1);
}

void MapSome(Scene& scene) {
  const TreeEntry& entry = scene.File();
  Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  const uint64_t offset = scene.random.OneIn(2) ? 0 : scene.random.Below(entry.size) / kPage * kPage;
  const size_t size = scene.random.OneIn(2) ? entry.size - offset : 1 + scene.random.Below(entry.size - offset);
  const bool writes = scene.random.OneIn(3);
  const int kinds[] = {MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE};
  const int kind = writes ? MAP_PRIVATE : scene.random.Of(kinds);
  const int extra[] = {0, 0, 0, size < (1 << 20) ? MAP_POPULATE : 0, MAP_NORESERVE};
  const int flags = kind | scene.random.Of(extra);
  void* const at = ::mmap(nullptr, size, PROT_READ | (writes ? PROT_WRITE : 0), flags, fd.get(), static_cast<off_t>(offset));
  scene.log->Done("mmap " + entry.path + " from " + std::to_string(offset) + " flags " + std::to_string(flags), at != MAP_FAILED);
  if (at == MAP_FAILED) return;
  const Mapping map{entry, offset, size, static_cast<char*>(at)};
  const bool early = scene.random.OneIn(2) && !writes;
  if (early) fd.Close();  // the mapping holds the file
  Touch(scene, map);
  if (scene.random.OneIn(2)) {
    Advise(scene, map);
    Touch(scene, map);
  }
  if (writes) WritePrivately(scene, map, fd.get());
  scene.log->Call("munmap " + entry.path, ::munmap(at, size));
}

// What must not be mapped: for writing together with the file, of no length, at a place that is no page, a directory.
void MapWrongly(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  auto attempt = [&](const char* what, size_t size, int protection, int flags, off_t offset) {
    void* const at = ::mmap(nullptr, size, protection, flags, fd.get(), offset);
    scene.log->Done(std::string(what) + " " + entry.path, at != MAP_FAILED);
    if (at != MAP_FAILED) ::munmap(at, size);
  };
  attempt("map for writing", kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  attempt("map nothing", 0, PROT_READ, MAP_SHARED, 0);
  attempt("map at an odd place", kPage, PROT_READ, MAP_SHARED, 100);
  attempt("map and run", kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0);
  const Descriptor directory(::open(scene.Directory().path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.ok()) return;
  scene.log->Done("map a directory", ::mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, directory.get(), 0) != MAP_FAILED);
}

// A mapping may become writable only if it is private.
void Protect(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  const int flags = scene.random.OneIn(2) ? MAP_SHARED : MAP_PRIVATE;
  void* const at = ::mmap(nullptr, entry.size, PROT_NONE, flags, fd.get(), 0);
  scene.log->Done("mmap without rights " + entry.path, at != MAP_FAILED);
  if (at == MAP_FAILED) return;
  scene.log->Call("mprotect for writing " + std::to_string(flags), ::mprotect(at, entry.size, PROT_READ | PROT_WRITE));
  scene.log->Call("mprotect for reading", ::mprotect(at, entry.size, PROT_READ));
  Touch(scene, {entry, 0, entry.size, static_cast<char*>(at)});
  ::munmap(at, entry.size);
}

}  // namespace

std::vector<Operation> MapOperations() { return {{"mmap", 20, MapSome}, {"mmap-wrong", 3, MapWrongly}, {"mprotect", 3, Protect}}; }

}  // namespace headrace::fs
