#include "fusefs/stream/image_files.h"

#include <algorithm>
#include <cctype>

namespace headrace::stream {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

size_t DigitsEnd(std::string_view text, size_t at) {
  while (at < text.size() && IsDigit(text[at])) ++at;
  return at;
}

std::string_view WithoutZeros(std::string_view digits) {
  const size_t first = digits.find_first_not_of('0');
  return first == std::string_view::npos ? digits.substr(digits.size()) : digits.substr(first);
}

std::string_view Directory(std::string_view name) {
  const size_t slash = name.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : name.substr(0, slash);
}

std::string_view Suffix(std::string_view name) {
  const size_t slash = name.rfind('/');
  const size_t dot = name.rfind('.');
  const bool has = dot != std::string_view::npos && (slash == std::string_view::npos || dot > slash);
  return has ? name.substr(dot) : std::string_view();
}

}  // namespace

bool NaturalLess(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (IsDigit(a[i]) && IsDigit(b[j])) {
      const size_t a_end = DigitsEnd(a, i), b_end = DigitsEnd(b, j);
      const std::string_view x = WithoutZeros(a.substr(i, a_end - i)), y = WithoutZeros(b.substr(j, b_end - j));
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      i = a_end;
      j = b_end;
      continue;
    }
    if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
    ++i;
    ++j;
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;  // only zeros in front differ: some order, always the same
}

bool ImageFiles::Same(const FilePlace& a, const FilePlace& b) {
  return a.entry == b.entry && (a.layer == b.layer || a.layer->blob.digest == b.layer->blob.digest);
}

void ImageFiles::Add(const std::string& image, const std::shared_ptr<const LayerSource>& layer, bool fill) {
  std::vector<File> added;
  for (uint32_t i = 0; i < layer->index->entries.size(); ++i) {
    const format::Entry& entry = layer->index->entries[i];
    if (entry.type == format::EntryType::kRegular && entry.size > small_bytes_) added.push_back({FilePlace{layer, i}, false});
  }
  const auto before = [](const File& a, const File& b) { return NaturalLess(a.place.meta().name, b.place.meta().name); };
  std::sort(added.begin(), added.end(), before);
  MutexLock lock(mu_);
  Image& to = images_[image];
  to.fill = to.fill && fill;
  for (Layer& known : to.layers) {
    if (known.source->blob.digest != layer->blob.digest) continue;
    ++known.count;
    return;
  }
  to.layers.push_back({layer, 1});
  const auto middle = static_cast<ptrdiff_t>(to.files.size());
  to.files.insert(to.files.end(), std::make_move_iterator(added.begin()), std::make_move_iterator(added.end()));
  std::inplace_merge(to.files.begin(), to.files.begin() + middle, to.files.end(), before);
}

void ImageFiles::Remove(const std::string& image, const std::shared_ptr<const LayerSource>& layer) {
  std::vector<File> gone;  // destroyed without the lock
  MutexLock lock(mu_);
  auto found = images_.find(image);
  if (found == images_.end()) return;
  Image& from = found->second;
  for (auto it = from.layers.begin(); it != from.layers.end(); ++it) {
    if (it->source->blob.digest != layer->blob.digest) continue;
    if (--it->count > 0) return;
    const auto keep = std::stable_partition(from.files.begin(), from.files.end(), [&](const File& file) {
      return file.place.layer->blob.digest != layer->blob.digest;
    });
    gone.assign(std::make_move_iterator(keep), std::make_move_iterator(from.files.end()));
    from.files.erase(keep, from.files.end());
    from.layers.erase(it);
    break;
  }
  if (from.layers.empty()) images_.erase(found);
}

template <typename Wanted>
std::optional<FilePlace> ImageFiles::TakeAfter(const FilePlace& from, const Wanted& wanted) {
  MutexLock lock(mu_);
  for (auto& [key, image] : images_) {
    const auto at = std::find_if(image.files.begin(), image.files.end(), [&](const File& f) { return Same(f.place, from); });
    if (at == image.files.end()) continue;
    const size_t start = static_cast<size_t>(at - image.files.begin());
    for (size_t n = 1; n < image.files.size(); ++n) {
      File& file = image.files[(start + n) % image.files.size()];
      if (file.taken || !wanted(image, file.place)) continue;
      file.taken = true;
      return file.place;
    }
  }
  return std::nullopt;
}

std::optional<FilePlace> ImageFiles::TakeNext(const FilePlace& from) {
  const std::string_view name = from.meta().name;
  const std::string_view directory = Directory(name), suffix = Suffix(name);
  return TakeAfter(from, [&](const Image&, const FilePlace& other) {
    return Directory(other.meta().name) == directory && Suffix(other.meta().name) == suffix;
  });
}

std::optional<FilePlace> ImageFiles::TakeFill(const FilePlace& from) {
  return TakeAfter(from, [](const Image& image, const FilePlace&) { return image.fill; });
}

void ImageFiles::Take(const FilePlace& place) {
  MutexLock lock(mu_);
  for (auto& [key, image] : images_) {
    for (File& file : image.files) file.taken = file.taken || Same(file.place, place);
  }
}

void ImageFiles::PutBack(const FilePlace& place) {
  MutexLock lock(mu_);
  for (auto& [key, image] : images_) {
    for (File& file : image.files) file.taken = file.taken && !Same(file.place, place);
  }
}

}  // namespace headrace::stream
