#include "fusefs/format/tar_writer.h"
#include "test/support/random_tree.h"

namespace headrace::test {

Result<std::string> ToTar(const TreeLayer& layer) {
  std::string tar;
  format::TarWriter writer([&tar](std::span<const uint8_t> bytes) {
    tar.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return OkStatus();
  });
  for (const TreeEntry& item : layer) {
    HR_RETURN_IF_ERROR(writer.Add(item.meta));
    if (item.meta.type != format::EntryType::kRegular) continue;
    HR_RETURN_IF_ERROR(writer.Data({reinterpret_cast<const uint8_t*>(item.content.data()), item.content.size()}));
  }
  HR_RETURN_IF_ERROR(writer.Finish());
  return tar;
}

}  // namespace headrace::test
