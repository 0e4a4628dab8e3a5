#include "integration/tools/bench/replay_files.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <thread>

#include "integration/tools/bench/common.h"

namespace headrace::bench {
namespace {

namespace fs = std::filesystem;

constexpr double kWaitSeconds = 60;
constexpr std::chrono::microseconds kWaitStep{100};  // small beside a round trip
constexpr uint64_t kHeaderBytesMax = 100'000'000;  // what safetensors accepts

// Order of names in which "shard-9" comes before "shard-10", as loaders sort.
bool NaturalLess(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
      continue;
    }
    const auto number = [&digit](const std::string& text, size_t& at) {
      while (at < text.size() && text[at] == '0') ++at;
      const size_t begin = at;
      while (at < text.size() && digit(text[at])) ++at;
      return text.substr(begin, at - begin);
    };
    const std::string x = number(a, i), y = number(b, j);
    if (x.size() != y.size()) return x.size() < y.size();
    if (x != y) return x < y;
  }
  return a.size() - i != b.size() - j ? a.size() - i < b.size() - j : a < b;
}

std::vector<uint64_t> TensorBegins(std::span<const uint8_t> header) {
  std::vector<uint64_t> begins;
  if (header.size() <= 8) return begins;
  const Json json = Json::parse(header.begin() + 8, header.end(), nullptr, false);
  if (!json.is_object()) return begins;
  for (const auto& [name, tensor] : json.items()) {
    if (name == "__metadata__") continue;
    const auto offsets = tensor.is_object() ? tensor.find("data_offsets") : tensor.end();
    if (offsets == tensor.end() || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned()) return {};
    begins.push_back(header.size() + (*offsets)[0].get<uint64_t>());
  }
  return begins;
}

std::vector<uint64_t> RandomBegins(uint64_t size, std::mt19937_64& random) {
  std::vector<uint64_t> begins;
  for (uint64_t at = 0; at < size; at += 4 * kMib + random() % (60 * kMib)) begins.push_back(at);
  return begins;
}

}  // namespace

uint64_t Model::bytes() const {
  uint64_t sum = 0;
  for (const ModelFile& file : shards) sum += file.size;
  return sum;
}

Model ListModel(const std::string& directory, uint64_t limit) {
  std::vector<fs::path> shards, documents;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".safetensors") shards.push_back(entry.path());
    if (entry.path().extension() == ".json") documents.push_back(entry.path());
  }
  const auto less = [](const fs::path& a, const fs::path& b) { return NaturalLess(a.filename(), b.filename()); };
  std::sort(shards.begin(), shards.end(), less);
  std::sort(documents.begin(), documents.end(), less);
  Model model;
  uint64_t left = limit == 0 ? UINT64_MAX : limit;
  for (const fs::path& path : shards) {
    const uint64_t size = std::min<uint64_t>(left, fs::file_size(path));
    left -= size;
    if (size > 0) model.shards.push_back({path, model.shards.size(), size});
  }
  for (const fs::path& path : documents) {
    model.documents.push_back({path, shards.size() + model.documents.size(), fs::file_size(path)});
  }
  if (model.shards.empty()) Fail(directory + " has no *.safetensors");
  return model;
}

void MoveTo(const std::string& directory, Model& model) {
  const double give_up = Now() + kWaitSeconds;
  while (!fs::exists(directory)) {
    if (Now() > give_up) Fail(directory + " did not appear");
    std::this_thread::sleep_for(kWaitStep);
  }
  for (std::vector<ModelFile>* files : {&model.shards, &model.documents}) {
    for (ModelFile& file : *files) file.path = fs::path(directory) / fs::path(file.path).filename();
  }
}

uint64_t HeaderBytes(std::span<const uint8_t, 8> head, uint64_t file_size) {
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= uint64_t{head[i]} << (8 * i);
  return length == 0 || length > kHeaderBytesMax || length + 8 > file_size ? 0 : length + 8;
}

std::vector<Piece> CutIntoTensors(const ModelFile& file, std::span<const uint8_t> header, std::mt19937_64& random) {
  std::vector<uint64_t> begins = TensorBegins(header);
  if (begins.empty()) begins = RandomBegins(file.size, random);
  begins.push_back(0);
  for (uint64_t& begin : begins) begin = begin / kPage * kPage;
  std::sort(begins.begin(), begins.end());
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  std::vector<Piece> pieces;
  for (size_t i = 0; i < begins.size() && begins[i] < file.size; ++i) {
    const uint64_t end = i + 1 < begins.size() ? std::min(begins[i + 1], file.size) : file.size;
    pieces.push_back({file.index, begins[i], end});
  }
  return pieces;
}

std::vector<Piece> CutIntoBlocks(const std::vector<ModelFile>& files, uint64_t size) {
  std::vector<Piece> pieces;
  for (const ModelFile& file : files) {
    for (uint64_t at = 0; at < file.size; at += size) pieces.push_back({file.index, at, std::min(file.size, at + size)});
  }
  return pieces;
}

Piece PartOf(const Piece& piece, uint64_t k, uint64_t n) {
  const auto cut = [&](uint64_t i) { return i == n ? piece.end : piece.begin + piece.size() / n * i / kPage * kPage; };
  return {piece.file, cut(k), cut(k + 1)};
}

}  // namespace headrace::bench
