// model-maker: makes a model directory of a given size, quickly and from a seed (same arguments, same bytes): sharded
// safetensors with the tensors of a llama-like model, their index, config.json, generation_config.json and tokenizer.json.
// Weights are BF16 and Gaussian, every row with a scale of its own, never zero: they compress as real weights do.
//
//   model-maker DIR --gib N [--seed S] [--shard-gib G] [--threads T] [--sums FILE]
// FILE (default DIR.sha256) gets the SHA-256 of every file in the format of sha256sum, with names relative to DIR.
// Prints one JSON line: {"files","bytes","weight_bytes","seconds"}.
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint64_t kGib = uint64_t{1} << 30;
constexpr uint64_t kBlock = uint64_t{4} << 20;  // bytes that one thread makes at a time (at least one row)

[[noreturn]] void Fail(const std::string& what) { throw std::runtime_error(what); }

uint64_t SplitMix(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// 65536 equally probable values of the standard normal distribution; none is zero.
std::vector<float> GaussianTable() {
  constexpr size_t kSize = 65536;
  std::vector<float> table(kSize);
  double x = 0;
  for (size_t i = kSize / 2; i < kSize; ++i) {
    const double p = (static_cast<double>(i) + 0.5) / kSize;
    for (int step = 0; step < 60; ++step) {  // Newton on the distribution function, from the neighbour's value
      const double error = 0.5 * std::erfc(-x / std::sqrt(2.0)) - p;
      const double density = std::exp(-0.5 * x * x) / std::sqrt(2.0 * 3.14159265358979323846);
      const double delta = error / density;
      x -= delta;
      if (std::fabs(delta) < 1e-9) break;
    }
    table[i] = static_cast<float>(x);
    table[kSize - 1 - i] = static_cast<float>(-x);
  }
  return table;
}

uint16_t ToBf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

struct Tensor {
  std::string name;
  std::vector<uint64_t> shape;
  uint64_t rows = 0;
  uint64_t columns = 0;
  uint64_t offset = 0;  // within its shard's data
  uint64_t bytes() const { return rows * columns * 2; }
  bool is_norm() const { return shape.size() == 1; }
};

struct Shard {
  std::string name;
  std::vector<Tensor> tensors;
  uint64_t data_bytes = 0;
  uint64_t header_bytes = 0;  // length field included
};

struct Shape {  // of the whole model
  uint64_t hidden = 0, intermediate = 0, heads = 0, kv_heads = 0, vocabulary = 0, layers = 0;
};

class Maker {
 public:
  Maker(fs::path directory, uint64_t target, uint64_t shard_limit, uint64_t seed, unsigned threads)
      : directory_(std::move(directory)), target_(target), shard_limit_(shard_limit), seed_(seed),
        threads_(std::max(1u, threads)), table_(GaussianTable()) {}

  void Make(const fs::path& sums);

 private:
  void Plan();
  void AddTensor(const std::string& name, std::vector<uint64_t> shape);
  void AddLayer(uint64_t layer);
  void MakeShard(size_t shard_index);
  std::string Header(const Shard& shard) const;
  void FillRows(const Tensor& tensor, uint64_t tensor_seed, uint64_t first_row, uint64_t end_row, uint16_t* out) const;
  void WriteText(const std::string& name, const std::string& content) const;
  std::string Tokenizer() const;
  void WriteSmallFiles() const;
  void WriteSums(const fs::path& sums);
  void Parallel(size_t count, const std::function<void(size_t)>& work) const;

  fs::path directory_;
  uint64_t target_, shard_limit_, seed_;
  unsigned threads_;
  std::vector<float> table_;
  Shape shape_;
  std::vector<Shard> shards_;
  uint64_t weight_bytes_ = 0;
};

void Maker::Parallel(size_t count, const std::function<void(size_t)>& work) const {
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::string error;
  std::mutex mutex;
  std::vector<std::thread> pool;
  for (unsigned t = 0; t < threads_; ++t) {
    pool.emplace_back([&] {
      for (size_t i; !failed && (i = next++) < count;) {
        try {
          work(i);
        } catch (const std::exception& e) {
          const std::lock_guard lock(mutex);
          failed = true;
          error = e.what();
        }
      }
    });
  }
  for (auto& thread : pool) thread.join();
  if (failed) Fail(error);
}

void Maker::AddTensor(const std::string& name, std::vector<uint64_t> shape) {
  Tensor tensor;
  tensor.name = name;
  tensor.shape = std::move(shape);
  tensor.rows = tensor.is_norm() ? 1 : tensor.shape[0];
  tensor.columns = tensor.shape.back();
  if (shards_.empty() || (shards_.back().data_bytes > 0 && shards_.back().data_bytes + tensor.bytes() > shard_limit_)) {
    shards_.emplace_back();
  }
  Shard& shard = shards_.back();
  tensor.offset = shard.data_bytes;
  shard.data_bytes += tensor.bytes();
  weight_bytes_ += tensor.bytes();
  shard.tensors.push_back(std::move(tensor));
}

void Maker::AddLayer(uint64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const uint64_t h = shape_.hidden, f = shape_.intermediate, kv = h / shape_.heads * shape_.kv_heads;
  AddTensor(prefix + "input_layernorm.weight", {h});
  AddTensor(prefix + "mlp.down_proj.weight", {h, f});
  AddTensor(prefix + "mlp.gate_proj.weight", {f, h});
  AddTensor(prefix + "mlp.up_proj.weight", {f, h});
  AddTensor(prefix + "post_attention_layernorm.weight", {h});
  AddTensor(prefix + "self_attn.k_proj.weight", {kv, h});
  AddTensor(prefix + "self_attn.o_proj.weight", {h, h});
  AddTensor(prefix + "self_attn.q_proj.weight", {h, h});
  AddTensor(prefix + "self_attn.v_proj.weight", {kv, h});
}

void Maker::Plan() {
  const double gib = static_cast<double>(target_) / static_cast<double>(kGib);
  const uint64_t h = gib < 0.05 ? 256 : gib < 0.5 ? 1024 : gib < 4 ? 2048 : gib < 64 ? 4096 : 8192;
  shape_ = {h, h * 7 / 2, h / 64, std::max<uint64_t>(1, h / 256), h < 1024 ? 4096u : 32000u, 0};
  const uint64_t outer = 2 * shape_.vocabulary * h * 2 + h * 2;
  const uint64_t kv = h / shape_.heads * shape_.kv_heads;
  const uint64_t layer = (3 * h * shape_.intermediate + 2 * h * h + 2 * kv * h + 2 * h) * 2;
  shape_.layers = target_ > outer + layer ? (target_ - outer + layer / 2) / layer : 1;
  AddTensor("model.embed_tokens.weight", {shape_.vocabulary, h});
  for (uint64_t i = 0; i < shape_.layers; ++i) AddLayer(i);
  AddTensor("model.norm.weight", {h});
  AddTensor("lm_head.weight", {shape_.vocabulary, h});
  for (size_t i = 0; i < shards_.size(); ++i) {
    char name[64];
    snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards_.size());
    shards_[i].name = name;
  }
}

std::string Maker::Header(const Shard& shard) const {
  Json header;
  header["__metadata__"] = {{"format", "pt"}};
  for (const Tensor& tensor : shard.tensors) {
    header[tensor.name] = {{"dtype", "BF16"}, {"shape", tensor.shape},
                           {"data_offsets", {tensor.offset, tensor.offset + tensor.bytes()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return out + text;
}

void Maker::FillRows(const Tensor& tensor, uint64_t tensor_seed, uint64_t first_row, uint64_t end_row,
                     uint16_t* out) const {
  for (uint64_t row = first_row; row < end_row; ++row) {
    uint64_t state = tensor_seed ^ (row * 0xd1342543de82ef95u);
    const float scale = 0.02f * std::exp(0.35f * table_[SplitMix(&state) & 0xffff]);
    const float base = tensor.is_norm() ? 1.0f : 0.0f;
    uint64_t column = 0;
    for (; column + 4 <= tensor.columns; column += 4) {
      const uint64_t random = SplitMix(&state);
      out[column] = ToBf16(base + scale * table_[random & 0xffff]);
      out[column + 1] = ToBf16(base + scale * table_[random >> 16 & 0xffff]);
      out[column + 2] = ToBf16(base + scale * table_[random >> 32 & 0xffff]);
      out[column + 3] = ToBf16(base + scale * table_[random >> 48]);
    }
    for (; column < tensor.columns; ++column) out[column] = ToBf16(base + scale * table_[SplitMix(&state) & 0xffff]);
    out += tensor.columns;
  }
}

void WriteAll(int fd, const void* data, uint64_t size, uint64_t offset, const std::string& name) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count = pwrite(fd, from, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) Fail("cannot write " + name + ": " + strerror(errno));
    from += count;
    size -= static_cast<uint64_t>(count);
    offset += static_cast<uint64_t>(count);
  }
}

void Maker::MakeShard(size_t shard_index) {
  Shard& shard = shards_[shard_index];
  const std::string path = directory_ / shard.name;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) Fail("cannot create " + path + ": " + strerror(errno));
  const std::string header = Header(shard);
  WriteAll(fd, header.data(), header.size(), 0, path);
  struct Piece {
    size_t tensor;
    uint64_t first_row, end_row;
  };
  std::vector<Piece> pieces;
  for (size_t t = 0; t < shard.tensors.size(); ++t) {
    const Tensor& tensor = shard.tensors[t];
    const uint64_t step = std::max<uint64_t>(1, kBlock / (tensor.columns * 2));
    for (uint64_t row = 0; row < tensor.rows; row += step) {
      pieces.push_back({t, row, std::min(tensor.rows, row + step)});
    }
  }
  Parallel(pieces.size(), [&](size_t i) {
    thread_local std::vector<uint16_t> buffer;
    const Piece& piece = pieces[i];
    const Tensor& tensor = shard.tensors[piece.tensor];
    const uint64_t count = (piece.end_row - piece.first_row) * tensor.columns;
    if (buffer.size() < count) buffer.resize(count);
    uint64_t state = seed_ + (uint64_t{shard_index} << 32) + piece.tensor;
    FillRows(tensor, SplitMix(&state), piece.first_row, piece.end_row, buffer.data());
    WriteAll(fd, buffer.data(), count * 2, header.size() + tensor.offset + piece.first_row * tensor.columns * 2, path);
  });
  if (close(fd) != 0) Fail("cannot write " + path + ": " + strerror(errno));
}

void Maker::WriteText(const std::string& name, const std::string& content) const {
  std::ofstream out(directory_ / name, std::ios::binary);
  out << content;
  out.close();
  if (!out) Fail("cannot write " + (directory_ / name).string());
}

// A byte-pair tokenizer's file: as many tokens as the vocabulary, made of syllables, and merges of two earlier tokens.
std::string Maker::Tokenizer() const {
  static const char* const kOnsets[] = {"b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v"};
  static const char* const kNuclei[] = {"a", "e", "i", "o", "u", "ai", "ou", "ea"};
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  for (const char* onset : kOnsets) {
    for (const char* nucleus : kNuclei) tokens.push_back(std::string(onset) + nucleus);
  }
  Json merges = Json::array();
  const size_t syllables = tokens.size();
  for (size_t i = 0; tokens.size() < shape_.vocabulary; ++i) {
    const std::string& left = tokens[3 + i / (syllables - 3)];
    const std::string& right = tokens[3 + i % (syllables - 3)];
    merges.push_back(left + " " + right);
    tokens.push_back(left + right);
  }
  Json vocabulary = Json::object();
  for (size_t i = 0; i < tokens.size(); ++i) vocabulary.emplace(tokens[i], i);
  Json tokenizer;
  tokenizer["version"] = "1.0";
  tokenizer["added_tokens"] = Json::array();
  for (int i = 0; i < 3; ++i) {
    tokenizer["added_tokens"].push_back({{"id", i}, {"content", tokens[static_cast<size_t>(i)]}, {"special", true}});
  }
  tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  tokenizer["decoder"] = {{"type", "ByteLevel"}};
  tokenizer["model"] = {{"type", "BPE"}, {"unk_token", "<unk>"}, {"vocab", vocabulary}, {"merges", merges}};
  return tokenizer.dump(1);
}

void Maker::WriteSmallFiles() const {
  Json index;
  index["metadata"] = {{"total_size", weight_bytes_}};
  std::map<std::string, std::string> weight_map;
  for (const Shard& shard : shards_) {
    for (const Tensor& tensor : shard.tensors) weight_map[tensor.name] = shard.name;
  }
  index["weight_map"] = weight_map;
  WriteText("model.safetensors.index.json", index.dump(2) + "\n");
  const Json config = {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"},
                       {"hidden_act", "silu"}, {"hidden_size", shape_.hidden},
                       {"intermediate_size", shape_.intermediate}, {"num_attention_heads", shape_.heads},
                       {"num_hidden_layers", shape_.layers}, {"num_key_value_heads", shape_.kv_heads},
                       {"vocab_size", shape_.vocabulary}, {"max_position_embeddings", 4096},
                       {"rms_norm_eps", 1e-5}, {"rope_theta", 10000.0}, {"tie_word_embeddings", false},
                       {"bos_token_id", 1}, {"eos_token_id", 2}, {"torch_dtype", "bfloat16"}};
  WriteText("config.json", config.dump(2) + "\n");
  const Json generation = {{"bos_token_id", 1}, {"eos_token_id", 2}, {"do_sample", true}, {"temperature", 0.6}, {"top_p", 0.9}};
  WriteText("generation_config.json", generation.dump(2) + "\n");
  WriteText("tokenizer.json", Tokenizer());
}

std::string FileSha256(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) Fail("cannot read " + path.string());
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context, EVP_sha256(), nullptr);
  std::vector<char> buffer(kBlock);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), in.gcount() > 0) {
    EVP_DigestUpdate(context, buffer.data(), static_cast<size_t>(in.gcount()));
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(context, digest, &size);
  EVP_MD_CTX_free(context);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    char text[3];
    snprintf(text, sizeof text, "%02x", digest[i]);
    hex += text;
  }
  return hex;
}

void Maker::WriteSums(const fs::path& sums) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory_)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  std::vector<std::string> digests(names.size());
  Parallel(names.size(), [&](size_t i) { digests[i] = FileSha256(directory_ / names[i]); });
  std::ofstream out(sums, std::ios::binary);
  for (size_t i = 0; i < names.size(); ++i) out << digests[i] << "  " << names[i] << "\n";
  out.close();
  if (!out) Fail("cannot write " + sums.string());
}

void Maker::Make(const fs::path& sums) {
  const auto start = std::chrono::steady_clock::now();
  Plan();
  fs::create_directories(directory_);
  if (!fs::is_empty(directory_)) Fail(directory_.string() + " is not empty");
  for (size_t i = 0; i < shards_.size(); ++i) MakeShard(i);
  WriteSmallFiles();
  WriteSums(sums);
  uint64_t bytes = 0, files = 0;
  for (const auto& entry : fs::directory_iterator(directory_)) {
    bytes += entry.file_size();
    ++files;
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  printf("{\"files\":%llu,\"bytes\":%llu,\"weight_bytes\":%llu,\"seconds\":%.2f}\n",
         static_cast<unsigned long long>(files), static_cast<unsigned long long>(bytes),
         static_cast<unsigned long long>(weight_bytes_), elapsed.count());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes a model directory for tests");
  std::string directory, sums;
  double gib = 1, shard_gib = 1;
  uint64_t seed = 1;
  unsigned threads = std::thread::hardware_concurrency();
  app.add_option("directory", directory)->required();
  app.add_option("--gib", gib, "size of the weights")->check(CLI::Range(0.001, 4096.0));
  app.add_option("--shard-gib", shard_gib, "largest shard")->check(CLI::Range(0.001, 64.0));
  app.add_option("--seed", seed);
  app.add_option("--threads", threads)->check(CLI::Range(1, 256));
  app.add_option("--sums", sums, "where the SHA-256 sums go (default DIR.sha256)");
  CLI11_PARSE(app, argc, argv);
  if (sums.empty()) sums = directory + ".sha256";
  try {
    const auto bytes = [](double value) { return static_cast<uint64_t>(value * static_cast<double>(kGib)); };
    Maker(directory, bytes(gib), bytes(shard_gib), seed, threads).Make(sums);
  } catch (const std::exception& e) {
    fprintf(stderr, "model-maker: %s\n", e.what());
    return 1;
  }
  return 0;
}
