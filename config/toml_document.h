// TomlDocument: configuration files of others (containerd's): looked up by path, merged, and changed in one place without touching the rest of the text.
//
// A path is the keys from the root, unquoted: {"plugins", "io.containerd.cri.v1.images", "snapshotter"}.
// Values by copy; no I/O; any thread. Limits: the caller's, on the size of what it reads.
#ifndef HEADRACE_CONFIG_TOML_DOCUMENT_H_
#define HEADRACE_CONFIG_TOML_DOCUMENT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::config {

using TomlPath = std::vector<std::string>;

class TomlDocument {
 public:
  TomlDocument();  // empty
  ~TomlDocument();
  TomlDocument(TomlDocument&&) noexcept;
  TomlDocument& operator=(TomlDocument&&) noexcept;

  // InvalidArgument: file, line and what is wrong there.
  static Result<TomlDocument> Parse(std::string_view text, const std::string& name_for_errors);

  bool Has(const TomlPath& path) const;
  // nullopt: not there, or of another type.
  std::optional<std::string> Text(const TomlPath& path) const;
  std::optional<bool> Flag(const TomlPath& path) const;
  std::optional<int64_t> Number(const TomlPath& path) const;
  // The strings of an array; empty: not there.
  std::vector<std::string> Texts(const TomlPath& path) const;
  // The keys of a table; empty: not there.
  std::vector<std::string> Keys(const TomlPath& path) const;
  // An array of tables: the value of `key` in each that has it.
  std::vector<std::string> TextOfEach(const TomlPath& path, const std::string& key) const;

  // What `other` says wins. Tables are merged key by key, everything else is replaced.
  void Merge(const TomlDocument& other);
  // Puts the whole value of `path` in `other` in place of ours, if it has one.
  void Replace(const TomlDocument& other, const TomlPath& path);

 private:
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

// `text` with `path` set to `value`, which is written as in TOML ("true", "\"x\"", "[\"a\"]"). Everything else stays to the byte: an existing value is replaced where
// it stands, a missing one goes below the head of its table, a missing table to the end. FailedPrecondition: the file is written in a way that this cannot do.
Result<std::string> SetTomlValue(const std::string& text, const TomlPath& path, const std::string& value);

// A string as TOML writes it, with its quotes.
std::string TomlString(std::string_view text);

}  // namespace headrace::config

#endif  // HEADRACE_CONFIG_TOML_DOCUMENT_H_
