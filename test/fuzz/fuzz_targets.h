// Fuzz targets: each takes any bytes, must not crash, hang or take unbounded memory, and aborts if a promise of the parser's header is broken.
// README.md of this folder says what each of them checks. One target is one file, <name>_fuzz.cc.
//
// Two programs use them: with clang each becomes a libFuzzer program (preset `fuzz`, integration/fuzz); fuzz_test replays the kept corpus
// (test/corpus/fuzz/<name>/) and mutates it for a moment, with any compiler. Targets keep no state between inputs.
#ifndef HEADRACE_TEST_FUZZ_FUZZ_TARGETS_H_
#define HEADRACE_TEST_FUZZ_FUZZ_TARGETS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace headrace::fuzz {

using Bytes = std::span<const uint8_t>;

void FuzzAuthChallenge(Bytes data);
void FuzzChunk(Bytes data);
void FuzzConfig(Bytes data);
void FuzzCredentialFiles(Bytes data);
void FuzzDecompress(Bytes data);
void FuzzEstargz(Bytes data);
void FuzzFilter(Bytes data);
void FuzzHostsToml(Bytes data);
void FuzzHttpAnswer(Bytes data);
void FuzzImageDocuments(Bytes data);
void FuzzKubeletProvider(Bytes data);
void FuzzLayerHint(Bytes data);
void FuzzLayerRecords(Bytes data);
void FuzzLayerWriter(Bytes data);
void FuzzLocation(Bytes data);
void FuzzPresenceMap(Bytes data);
void FuzzPullSecret(Bytes data);
void FuzzSeekTable(Bytes data);
void FuzzTar(Bytes data);
void FuzzText(Bytes data);
void FuzzToc(Bytes data);
void FuzzUrl(Bytes data);

struct Target {
  const char* name;  // of the file and of the corpus
  void (*run)(Bytes);
};

inline constexpr Target kTargets[] = {
    {"auth_challenge", FuzzAuthChallenge},
    {"chunk", FuzzChunk},
    {"config", FuzzConfig},
    {"credential_files", FuzzCredentialFiles},
    {"decompress", FuzzDecompress},
    {"estargz", FuzzEstargz},
    {"filter", FuzzFilter},
    {"hosts_toml", FuzzHostsToml},
    {"http_answer", FuzzHttpAnswer},
    {"image_documents", FuzzImageDocuments},
    {"kubelet_provider", FuzzKubeletProvider},
    {"layer_hint", FuzzLayerHint},
    {"layer_records", FuzzLayerRecords},
    {"layer_writer", FuzzLayerWriter},
    {"location", FuzzLocation},
    {"presence_map", FuzzPresenceMap},
    {"pull_secret", FuzzPullSecret},
    {"seek_table", FuzzSeekTable},
    {"tar", FuzzTar},
    {"text", FuzzText},
    {"toc", FuzzToc},
    {"url", FuzzUrl},
};

inline std::string_view TextOf(Bytes data) { return {reinterpret_cast<const char*>(data.data()), data.size()}; }

// Cuts an input into parts: a selector in front, pieces of text. Selectors are digits and separators are line ends, so that seeds can be
// written with an editor.
class Input {
 public:
  explicit Input(Bytes data) : rest_(data) {}

  // The next byte as a choice out of `count`: '0' is 0.
  size_t Choice(size_t count) {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<size_t>(static_cast<uint8_t>(rest_.front() - '0'));
    rest_ = rest_.subspan(1);
    return byte % count;
  }
  // Up to the next line end, which is taken and not returned.
  std::string_view Line() {
    const std::string_view text = TextOf(rest_);
    const size_t end = text.find('\n');
    rest_ = end == std::string_view::npos ? Bytes() : rest_.subspan(end + 1);
    return text.substr(0, end);
  }
  bool empty() const { return rest_.empty(); }
  Bytes Rest() const { return rest_; }
  std::string_view Text() const { return TextOf(rest_); }

 private:
  Bytes rest_;
};

}  // namespace headrace::fuzz

#endif  // HEADRACE_TEST_FUZZ_FUZZ_TARGETS_H_
