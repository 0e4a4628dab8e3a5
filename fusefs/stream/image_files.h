// ImageFiles: the files of the images whose layers are attached, in the order in which loaders take them: what comes next when one is read.
// The shards of a model lie in different layers of one image. Internal to stream/; used by the planner's thread and by those who attach layers.
// Any thread; one small lock, a leaf.
#ifndef HEADRACE_FUSEFS_STREAM_IMAGE_FILES_H_
#define HEADRACE_FUSEFS_STREAM_IMAGE_FILES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/stream/streamer.h"

namespace headrace::stream {

// "model-2" before "model-10": runs of digits compare as numbers.
bool NaturalLess(std::string_view a, std::string_view b);

struct FilePlace {
  std::shared_ptr<const LayerSource> layer;
  uint32_t entry = 0;
  const format::Entry& meta() const { return layer->index->entries[entry]; }
};

class ImageFiles {
 public:
  // One file of one blob, by whichever layer source.
  static bool Same(const FilePlace& a, const FilePlace& b);

  // Files below `small_bytes` are not taken up: they are fetched whole when they are opened.
  explicit ImageFiles(uint64_t small_bytes) : small_bytes_(small_bytes) {}

  // Counted: an image shows a layer as often as it was added. `fill`: the rest of the image may be fetched in the background.
  void Add(const std::string& image, const std::shared_ptr<const LayerSource>& layer, bool fill);
  void Remove(const std::string& image, const std::shared_ptr<const LayerSource>& layer);

  // The first file after `from`, in natural order and around, that lies in the same directory, has the same suffix and was not taken yet. Takes it.
  std::optional<FilePlace> TakeNext(const FilePlace& from);
  // Of the images that hold `from`: any file that was not taken yet and may be filled, in natural order. Takes it.
  std::optional<FilePlace> TakeFill(const FilePlace& from);
  // The file is being planned by itself.
  void Take(const FilePlace& place);
  // The file did not come and may be taken again.
  void PutBack(const FilePlace& place);

 private:
  struct File {
    FilePlace place;
    bool taken = false;
  };
  struct Layer {
    std::shared_ptr<const LayerSource> source;
    unsigned count = 0;
  };
  struct Image {
    std::vector<Layer> layers;
    std::vector<File> files;  // in natural order of their names
    bool fill = true;
  };
  template <typename Wanted>
  std::optional<FilePlace> TakeAfter(const FilePlace& from, const Wanted& wanted);

  const uint64_t small_bytes_;
  Mutex mu_;
  std::map<std::string, Image> images_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_IMAGE_FILES_H_
