#include "fusefs/format/json_object.h"

#include "fusefs/base/text.h"

namespace headrace::format {
namespace {

constexpr int kDepthMax = 64;       // of nested arrays and objects; real documents have about 5

// nlohmann parses iteratively but prints recursively, so depth is bounded before either.
Status CheckDepth(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDepthMax) return ResourceExhaustedError("JSON nested deeper than 64");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return {};
}

}  // namespace

Result<nlohmann::json> ParseJsonObject(std::string_view text, uint64_t size_max, std::string_view what) {
  if (text.size() > size_max) {
    return ResourceExhaustedError(std::string(what) + " larger than " + HumanBytes(size_max));
  }
  if (Status s = CheckDepth(text); !s.ok()) return s.Annotate(what);
  nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return InvalidArgumentError(std::string(what) + " is not a JSON object");
  return parsed;
}

}  // namespace headrace::format
