// Size and time of the biggest layers: a million entries, as one directory and as many, merged with a layer on
// top. The bounds are wide, for sanitizers and busy machines; the figures are printed (fusefs/tree/README.md
// has those of a release build).
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdio>
#include <ctime>
#include <string>

#include "fusefs/tree/merged_view.h"
#include "test/support/matchers.h"
#include "test/support/random_tree.h"

namespace headrace::tree {
namespace {

constexpr uint32_t kEntries = 1'000'000;

// Bytes that the allocator has handed out; 0 where it does not tell (sanitizers).
size_t HeapBytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Of this process: other work on the machine does not count.
double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

class Measure {
 public:
  explicit Measure(const char* what) : what_(what), heap_(HeapBytes()), start_(CpuSeconds()) {}
  ~Measure() {
    const double seconds = CpuSeconds() - start_;
    const double mib = (static_cast<double>(HeapBytes()) - static_cast<double>(heap_)) / (1 << 20);
    std::printf("%-40s %6.2f CPU s  %7.1f MiB kept\n", what_, seconds, mib);
    EXPECT_LT(seconds, 60) << what_;
    EXPECT_LT(mib, 300) << what_;
  }

 private:
  const char* what_;
  size_t heap_;
  double start_;
};

std::string FileName(uint32_t i, uint32_t per_directory) {
  // Neighbours in the tar are no neighbours in the sorted directory.
  const uint64_t mixed = uint64_t{i} * 2654435761u % 1000003u;
  return "usr/lib/package-" + std::to_string(i / per_directory) + "/module_" + std::to_string(mixed) + ".py";
}

std::shared_ptr<const format::LayerIndex> MakeIndex(uint32_t per_directory) {
  auto index = std::make_shared<format::LayerIndex>();
  index->entries.resize(kEntries);
  for (uint32_t i = 0; i < kEntries; ++i) index->entries[i].name = FileName(i, per_directory);
  return index;
}

// Goal: bounded time and memory for a million entries. Method: builds and merges them, checks that everything is there.
TEST(LimitsTest, MillionEntries) {
  for (const uint32_t per_directory : {kEntries, 20u}) {
    const std::string shape = per_directory == kEntries ? " (one directory)" : " (20 in each directory)";
    std::shared_ptr<const format::LayerIndex> index;
    {
      const std::string what = "index" + shape;
      Measure measure(what.c_str());
      index = MakeIndex(per_directory);
    }
    Chain chain;
    {
      const std::string what = "layer tree" + shape;
      Measure measure(what.c_str());
      auto tree = LayerTree::Build(index);
      ASSERT_OK(tree);
      chain.push_back(*tree);
    }
    EXPECT_EQ(chain[0]->file_count(), kEntries);
    test::TreeLayer top{test::File("usr/lib/package-0/extra"), test::File("usr/lib/.wh.package-1"),
                        test::Dir("usr", 0711)};
    chain.push_back(*LayerTree::Build(std::make_shared<const format::LayerIndex>(test::ToIndex(top))));
    std::shared_ptr<const MergedView> view;
    {
      const std::string what = "merged view" + shape;
      Measure measure(what.c_str());
      auto built = MergedView::Build(chain, MergeMode::kBottom);
      ASSERT_OK(built);
      view = *built;
    }
    const uint32_t lib = view->Find(view->Find(0, "usr")->target, "lib")->target;
    const uint32_t package = view->Find(lib, "package-0")->target;
    EXPECT_EQ(view->children(package).size(), per_directory + 1);
    const double start = CpuSeconds();
    for (uint32_t i = 0; i < per_directory; ++i) {
      const std::string path = FileName(i, per_directory);
      const ViewChild* child = view->Find(package, path.substr(path.rfind('/') + 1));
      ASSERT_NE(child, nullptr);
      ASSERT_EQ(child->target, i);
    }
    std::printf("%-40s %6.0f ns\n", ("lookup" + shape).c_str(), (CpuSeconds() - start) * 1e9 / per_directory);
  }
}

}  // namespace
}  // namespace headrace::tree
