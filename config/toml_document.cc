#include "config/toml_document.h"

#include <toml++/toml.h>

#include <sstream>

namespace headrace::config {
namespace {

constexpr size_t kDepthMax = 16;

const toml::node* Find(const toml::table& root, const TomlPath& path) {
  const toml::node* node = &root;
  for (const std::string& key : path) {
    const toml::table* table = node->as_table();
    node = table == nullptr ? nullptr : table->get(key);
    if (node == nullptr) return nullptr;
  }
  return node;
}

void MergeInto(toml::table& into, const toml::table& from, size_t depth) {
  for (const auto& [key, value] : from) {
    toml::node* old = into.get(key.str());
    if (old != nullptr && old->is_table() && value.is_table() && depth < kDepthMax) {
      MergeInto(*old->as_table(), *value.as_table(), depth + 1);
    } else {
      value.visit([&, name = std::string(key.str())](const auto& concrete) { into.insert_or_assign(name, concrete); });
    }
  }
}

// Where a position of toml++ (line and column from 1, columns in code points) is in the text.
size_t OffsetOf(std::string_view text, toml::source_position at) {
  size_t offset = 0;
  for (toml::source_index line = 1; line < at.line; ++line) {
    offset = text.find('\n', offset);
    if (offset == std::string_view::npos) return text.size();
    ++offset;
  }
  for (toml::source_index column = 1; column < at.column && offset < text.size(); ++column) {
    ++offset;
    while (offset < text.size() && (static_cast<unsigned char>(text[offset]) & 0xC0) == 0x80) ++offset;
  }
  return offset;
}

// The keys of a table's head ("[a.'b.c']"); empty: the line is none.
TomlPath HeadOf(std::string_view line) {
  const size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string_view::npos || line[begin] != '[' || line.substr(begin).starts_with("[[")) return {};
  try {  // the head alone is a document whose tables are nested in each other
    const toml::table parsed = toml::parse(line);
    TomlPath path;
    const toml::table* table = &parsed;
    while (table != nullptr && table->size() == 1) {
      path.emplace_back(table->begin()->first.str());
      table = table->begin()->second.as_table();
    }
    return path;
  } catch (const toml::parse_error&) {
    return {};
  }
}

bool IsBare(std::string_view key) {
  return !key.empty() && key.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == std::string_view::npos;
}

std::string Key(const std::string& key) { return IsBare(key) ? key : TomlString(key); }

std::string Dotted(const TomlPath& path) {
  std::string out;
  for (const std::string& key : path) out += (out.empty() ? "" : ".") + Key(key);
  return out;
}

// A value below the head of its table, or where the root's own keys stand; with a new table at the end if there is none.
std::string InsertValue(const std::string& text, const TomlPath& path, const std::string& value) {
  const TomlPath table(path.begin(), path.end() - 1);
  const std::string line = Key(path.back()) + " = " + value + "\n";
  size_t after_version = 0;
  bool in_root = true;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    const std::string_view current = std::string_view(text).substr(begin, end - begin);
    const TomlPath head = HeadOf(current);
    in_root = in_root && current.find_first_not_of(" \t") != current.find('[');
    if (in_root && current.starts_with("version")) after_version = end;
    if (!table.empty() && head == table) {
      const std::string indent(current.find_first_not_of(" \t") + 2, ' ');
      return text.substr(0, end) + (current.ends_with('\n') ? "" : "\n") + indent + line + text.substr(end);
    }
    begin = end;
  }
  if (table.empty()) {
    const std::string before = text.substr(0, after_version);
    return before + (before.empty() || before.ends_with('\n') ? "" : "\n") + line + text.substr(after_version);
  }
  return text + (text.empty() || text.ends_with('\n') ? "" : "\n") + "\n[" + Dotted(table) + "]\n  " + line;
}

std::string Print(const toml::table& table) {
  std::ostringstream out;
  out << table;
  return out.str();
}

toml::table Nest(const TomlPath& path, const std::string& value) {
  const TomlPath table(path.begin(), path.end() - 1);
  return toml::parse((table.empty() ? "" : "[" + Dotted(table) + "]\n") + Key(path.back()) + " = " + value + "\n");
}

}  // namespace

struct TomlDocument::Tree {
  toml::table root;
};

TomlDocument::TomlDocument() : tree_(std::make_unique<Tree>()) {}
TomlDocument::~TomlDocument() = default;
TomlDocument::TomlDocument(TomlDocument&&) noexcept = default;
TomlDocument& TomlDocument::operator=(TomlDocument&&) noexcept = default;

Result<TomlDocument> TomlDocument::Parse(std::string_view text, const std::string& name_for_errors) {
  TomlDocument document;
  try {
    document.tree_->root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return InvalidArgumentError(name_for_errors + ":" + std::to_string(error.source().begin.line) + ": " + std::string(error.description()));
  }
  return document;
}

bool TomlDocument::Has(const TomlPath& path) const { return Find(tree_->root, path) != nullptr; }

std::optional<std::string> TomlDocument::Text(const TomlPath& path) const {
  const toml::node* node = Find(tree_->root, path);
  return node == nullptr ? std::nullopt : node->value_exact<std::string>();
}

std::optional<bool> TomlDocument::Flag(const TomlPath& path) const {
  const toml::node* node = Find(tree_->root, path);
  return node == nullptr ? std::nullopt : node->value_exact<bool>();
}

std::optional<int64_t> TomlDocument::Number(const TomlPath& path) const {
  const toml::node* node = Find(tree_->root, path);
  return node == nullptr ? std::nullopt : node->value_exact<int64_t>();
}

std::vector<std::string> TomlDocument::Texts(const TomlPath& path) const {
  std::vector<std::string> out;
  const toml::node* node = Find(tree_->root, path);
  const toml::array* array = node == nullptr ? nullptr : node->as_array();
  if (array == nullptr) return out;
  for (const toml::node& item : *array) {
    if (auto text = item.value_exact<std::string>()) out.push_back(std::move(*text));
  }
  return out;
}

std::vector<std::string> TomlDocument::Keys(const TomlPath& path) const {
  std::vector<std::string> out;
  const toml::node* node = Find(tree_->root, path);
  const toml::table* table = node == nullptr ? nullptr : node->as_table();
  if (table == nullptr) return out;
  for (const auto& [key, value] : *table) out.emplace_back(key.str());
  return out;
}

std::vector<std::string> TomlDocument::TextOfEach(const TomlPath& path, const std::string& key) const {
  std::vector<std::string> out;
  const toml::node* node = Find(tree_->root, path);
  const toml::array* array = node == nullptr ? nullptr : node->as_array();
  if (array == nullptr) return out;
  for (const toml::node& item : *array) {
    const toml::table* table = item.as_table();
    const toml::node* value = table == nullptr ? nullptr : table->get(key);
    if (value == nullptr) continue;
    if (auto text = value->value_exact<std::string>()) out.push_back(std::move(*text));
  }
  return out;
}

void TomlDocument::Merge(const TomlDocument& other) { MergeInto(tree_->root, other.tree_->root, 0); }

void TomlDocument::Replace(const TomlDocument& other, const TomlPath& path) {
  const toml::node* from = Find(other.tree_->root, path);
  if (from == nullptr) return;
  toml::table* table = &tree_->root;
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    if (table->get(path[i]) == nullptr || !table->get(path[i])->is_table()) table->insert_or_assign(path[i], toml::table{});
    table = table->get(path[i])->as_table();
  }
  from->visit([&](const auto& concrete) { table->insert_or_assign(path.back(), concrete); });
}

Result<std::string> SetTomlValue(const std::string& text, const TomlPath& path, const std::string& value) {
  HEADRACE_CHECK(!path.empty());
  const Status by_hand = FailedPreconditionError(Dotted(path) + " must be set to " + value + " by hand: the file is written in a way that is not changed here");
  try {
    const toml::table before = toml::parse(text);
    std::string changed;
    if (const toml::node* node = Find(before, path); node != nullptr) {
      const size_t begin = OffsetOf(text, node->source().begin), end = OffsetOf(text, node->source().end);
      if (node->is_table() || begin >= end) return by_hand;
      changed = text.substr(0, begin) + value + text.substr(end);
    } else {
      changed = InsertValue(text, path, value);
    }
    // Exactly that, and nothing else, is different now.
    toml::table wanted = before;
    MergeInto(wanted, Nest(path, value), 0);
    return Print(toml::parse(changed)) == Print(wanted) ? Result<std::string>(changed) : Result<std::string>(by_hand);
  } catch (const toml::parse_error& error) {
    return by_hand.Annotate("line " + std::to_string(error.source().begin.line) + ": " + std::string(error.description()));
  }
}

std::string TomlString(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += std::string("\\") + c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      constexpr char kHex[] = "0123456789abcdef";
      out += std::string("\\u00") + kHex[static_cast<unsigned char>(c) >> 4] + kHex[c & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace headrace::config
