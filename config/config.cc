#include "config/config.h"

#include <algorithm>
#include <functional>
#include <map>
#include <sstream>

#include <toml++/toml.h>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"

namespace headrace::config {
namespace {

constexpr uint64_t kConfigFileSizeMax = 1 << 20;

Status Convert(std::string_view text, Text* out) {
  *out = std::string(text);
  return {};
}

Status Convert(std::string_view text, TextList* out) {
  out->clear();
  if (!text.empty()) out->emplace_back(text);
  return {};
}

Status Convert(std::string_view text, Size* out) {
  HR_ASSIGN_OR_RETURN(*out, ParseSize(text));
  return {};
}

Status Convert(std::string_view text, Duration* out) {
  HR_ASSIGN_OR_RETURN(*out, ParseDuration(text));
  return {};
}

// Size and Count share a C++ type: a count is a size without unit, and defaults are ours, so one conversion serves both.
template <typename T>
T FromTable(std::string_view text) {
  T value{};
  HEADRACE_CHECK(Convert(text, &value).ok());
  return value;
}

template <typename T>
Status CheckLimits(const T& value, std::string_view min, std::string_view max) {
  if constexpr (std::is_same_v<T, Text>) {
    std::string choices;
    for (const std::string_view choice : max.empty() ? std::vector<std::string_view>{} : Split(max, '|')) {
      if (value == choice) return {};
      choices += (choices.empty() ? "\"" : ", \"") + std::string(choice) + "\"";
    }
    return choices.empty() ? OkStatus() : InvalidArgumentError("must be one of " + choices);
  }
  if constexpr (std::is_same_v<T, Size> || std::is_same_v<T, Duration>) {
    bool low = !min.empty() && value < FromTable<T>(min);
    bool high = !max.empty() && value > FromTable<T>(max);
    if (low || high) {
      return InvalidArgumentError("must lie between " + std::string(min) + " and " + std::string(max));
    }
  }
  return {};
}

// The value of a key as text, or the list of texts of an array.
Status ReadNode(const toml::node& node, bool is_list, TextList* out) {
  if (const toml::array* array = node.as_array()) {
    if (!is_list) return InvalidArgumentError("takes one value, not a list");
    for (const toml::node& item : *array) {
      const auto* text = item.as_string();
      if (text == nullptr) return InvalidArgumentError("takes a list of strings");
      out->push_back(text->get());
    }
    return {};
  }
  if (const auto* text = node.as_string()) {
    out->push_back(text->get());
  } else if (const auto* number = node.as_integer(); number != nullptr && number->get() >= 0) {
    out->push_back(std::to_string(number->get()));
  } else {
    return InvalidArgumentError("takes a string or a number that is not negative");
  }
  return {};
}

template <typename T>
Status Assign(const toml::node& node, std::string_view min, std::string_view max, T* out) {
  constexpr bool kIsList = std::is_same_v<T, TextList>;
  TextList texts;
  HR_RETURN_IF_ERROR(ReadNode(node, kIsList, &texts));
  if constexpr (kIsList) {
    *out = std::move(texts);
    return {};
  } else {
    HR_RETURN_IF_ERROR(Convert(texts.at(0), out));
    return CheckLimits(*out, min, max);
  }
}

using Setter = std::function<Status(const toml::node&)>;
using Setters = std::map<std::string, std::map<std::string, Setter>>;

Setters MakeSetters(Config* config) {
  Setters setters;
#define HEADRACE_FUSED_SETTER(group, section, key, kind, fallback, min, max, help)                \
  setters[section][#key] = [config](const toml::node& node) {                                     \
    return Assign(node, min, max, &config->fused.key);                                            \
  };
#define HEADRACE_SNAPSHOTTER_SETTER(group, section, key, kind, fallback, min, max, help)          \
  setters[section][#key] = [config](const toml::node& node) {                                     \
    return Assign(node, min, max, &config->snapshotter.key);                                      \
  };
  HEADRACE_FUSED_PARAMS(HEADRACE_FUSED_SETTER)
  HEADRACE_SNAPSHOTTER_PARAMS(HEADRACE_SNAPSHOTTER_SETTER)
#undef HEADRACE_FUSED_SETTER
#undef HEADRACE_SNAPSHOTTER_SETTER
  return setters;
}

// Levenshtein distance; keys are short.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t cost = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({cost, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

template <typename Map>
std::string Nearest(const Map& known, std::string_view word) {
  std::string best;
  for (const auto& [name, unused] : known) {
    if (best.empty() || Distance(name, word) < Distance(best, word)) best = name;
  }
  return best;
}

std::string Where(const std::string& file, const toml::node& node) {
  return file + ":" + std::to_string(node.source().begin.line);
}

Status Apply(const toml::table& root, const Setters& setters, const std::string& file) {
  for (const auto& [section, node] : root) {
    const std::string section_name(section.str());
    auto found = setters.find(section_name);
    const toml::table* table = node.as_table();
    if (found == setters.end() || table == nullptr) {
      return InvalidArgumentError(Where(file, node) + ": there is no section [" + section_name + "]; did you mean [" +
                                  Nearest(setters, section_name) + "]?");
    }
    for (const auto& [key, value] : *table) {
      const std::string key_name(key.str());
      auto setter = found->second.find(key_name);
      if (setter == found->second.end()) {
        return InvalidArgumentError(Where(file, value) + ": there is no key '" + key_name + "' in [" + section_name +
                                    "]; did you mean '" + Nearest(found->second, key_name) + "'?");
      }
      HR_RETURN_IF_ERROR(setter->second(value).Annotate(Where(file, value) + ": " + section_name + "." + key_name));
    }
  }
  return {};
}

}  // namespace

#define HEADRACE_DEFAULT(group, section, key_, kind, fallback, min, max, help) key_ = FromTable<kind>(fallback);
FusedConfig::FusedConfig() { HEADRACE_FUSED_PARAMS(HEADRACE_DEFAULT) }
SnapshotterConfig::SnapshotterConfig() { HEADRACE_SNAPSHOTTER_PARAMS(HEADRACE_DEFAULT) }
#undef HEADRACE_DEFAULT

Result<Config> ParseConfig(std::string_view toml, const std::string& name_for_errors) {
  Config config;
  try {  // Debian's library is the one that throws
    const toml::table table = toml::parse(toml);
    HR_RETURN_IF_ERROR(Apply(table, MakeSetters(&config), name_for_errors));
  } catch (const toml::parse_error& error) {
    return InvalidArgumentError(name_for_errors + ":" + std::to_string(error.source().begin.line) + ": " +
                                std::string(error.description()));
  }
  return config;
}

Result<Config> LoadConfig(const std::string& path) {
  HR_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kConfigFileSizeMax));
  return ParseConfig(text, path);
}

std::string DefaultToml() {
  // A section that both daemons read ([keychain]) must stand in the file once: TOML allows no second.
  std::vector<std::pair<std::string, std::ostringstream>> sections;
  auto line = [&](const std::string& section, const char* key, const std::string& kind, const std::string& fallback,
                  const std::string& min, const std::string& max, const char* help) {
    auto found = std::find_if(sections.begin(), sections.end(), [&](const auto& other) { return other.first == section; });
    if (found == sections.end()) found = sections.emplace(sections.end(), section, std::ostringstream());
    std::ostringstream& out = found->second;
    out << "# " << help;
    if (!min.empty()) out << " (" << min << " to " << max << ")";
    out << "\n#" << key << " = ";
    if (kind == "Count") {
      out << fallback << "\n";
    } else if (kind == "TextList") {
      out << "[]\n";
    } else {
      out << '"' << fallback << "\"\n";
    }
  };
#define HEADRACE_LINE(group, section, key, kind, fallback, min, max, help) line(section, #key, #kind, fallback, min, max, help);
  HEADRACE_FUSED_PARAMS(HEADRACE_LINE)
  HEADRACE_SNAPSHOTTER_PARAMS(HEADRACE_LINE)
#undef HEADRACE_LINE
  std::string out = "# Headrace. Every key with its default; remove the '#' in front of a key to change it.\n";
  for (const auto& [section, lines] : sections) out += "\n[" + section + "]\n" + lines.str();
  return out;
}

std::string DocumentationTable() {
  std::ostringstream out;
  out << "| section | key | kind | default | from - to | what it does |\n|---|---|---|---|---|---|\n";
  auto line = [&](const char* section, const char* key, const char* kind, const std::string& fallback,
                  const std::string& min, const std::string& max, const char* help) {
    out << "| " << section << " | `" << key << "` | " << kind << " | " << (fallback.empty() ? "" : "`" + fallback + "`")
        << " | " << (min.empty() ? "" : min + " - " + max) << " | " << help << " |\n";
  };
#define HEADRACE_LINE(group, section, key, kind, fallback, min, max, help) line(section, #key, #kind, fallback, min, max, help);
  HEADRACE_FUSED_PARAMS(HEADRACE_LINE)
  HEADRACE_SNAPSHOTTER_PARAMS(HEADRACE_LINE)
#undef HEADRACE_LINE
  return out.str();
}

std::vector<std::string> ChangedSettings(const FusedConfig& before, const FusedConfig& after) {
  std::vector<std::string> changed;
#define HEADRACE_COMPARE(group, section, key, kind, fallback, min, max, help) \
  if (before.key != after.key) changed.emplace_back(std::string(section) + "." #key);
  HEADRACE_FUSED_PARAMS(HEADRACE_COMPARE)
#undef HEADRACE_COMPARE
  return changed;
}

bool IsReloadable(std::string_view section_and_key) {
  static constexpr std::string_view kReloadable[] = {"fused.log_level", "stream.fill_rate", "cache.budget", "cache.low_mark", "cache.free_min", "cache.max_age"};
  return std::find(std::begin(kReloadable), std::end(kReloadable), section_and_key) != std::end(kReloadable);
}

}  // namespace headrace::config
