// Two functions of newer C libraries that GCC 12's static libstdc++ and libgcc call: with these here the programs run on glibc 2.34 (Amazon Linux 2023)
// and 2.35 (Ubuntu 22.04), although they are linked on Debian 12 (2.36). Only in packages (static.cmake). Any thread.
#include <dlfcn.h>
#include <link.h>
#include <sys/random.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace {

// As glibc 2.35 declares it for its unwinder (dl_find_object(3)).
struct FoundObject {
  unsigned long long flags;
  void* map_start;
  void* map_end;
  void* link_map;
  void* eh_frame;
  unsigned long long reserved[7];
};

struct Search {
  uintptr_t pc;
  FoundObject* found;
  bool done;
};

// The object with that address in one of its segments, and the table by which its frames are unwound.
int Look(dl_phdr_info* info, size_t, void* argument) {
  auto* search = static_cast<Search*>(argument);
  uintptr_t begin = UINTPTR_MAX, end = 0, table = 0;
  bool inside = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const uintptr_t from = info->dlpi_addr + segment.p_vaddr, to = from + segment.p_memsz;
    if (segment.p_type == PT_GNU_EH_FRAME) table = from;
    if (segment.p_type != PT_LOAD) continue;
    inside = inside || (search->pc >= from && search->pc < to);
    begin = from < begin ? from : begin;
    end = to > end ? to : end;
  }
  if (!inside) return 0;
  search->found->flags = 0;
  search->found->map_start = reinterpret_cast<void*>(begin);
  search->found->map_end = reinterpret_cast<void*>(end);
  search->found->link_map = nullptr;
  search->found->eh_frame = reinterpret_cast<void*>(table);
  search->done = table != 0;
  return 1;
}

}  // namespace

extern "C" {

__attribute__((visibility("hidden"))) int FindObject(void* pc, FoundObject* found) asm("_dl_find_object");
int FindObject(void* pc, FoundObject* found) {
  Search search{reinterpret_cast<uintptr_t>(pc), found, false};
  ::dl_iterate_phdr(Look, &search);
  return search.done ? 0 : -1;
}

__attribute__((visibility("hidden"))) uint32_t RandomNumber() asm("arc4random");
uint32_t RandomNumber() {
  uint32_t number = 0;
  ssize_t n;
  do {
    n = ::getrandom(&number, sizeof number, 0);
  } while (n < 0 && errno == EINTR);
  if (n != sizeof number) std::abort();
  return number;
}

}  // extern "C"
