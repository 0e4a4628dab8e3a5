#include "fusefs/registry/hosts_toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <charconv>

#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

constexpr size_t kHostsMax = 64;
constexpr size_t kListMax = 64;
constexpr size_t kHeaderBytesMax = 8192;

std::string Line(const toml::node& node) { return "line " + std::to_string(node.source().begin.line); }

Status Wrong(const toml::node& node, std::string_view key, const std::string& wanted) {
  return InvalidArgumentError(Line(node) + ": " + std::string(key) + ": " + wanted);
}

// One text or a list of texts.
Result<std::vector<std::string>> Texts(const toml::node& node, std::string_view key) {
  std::vector<std::string> out;
  if (const auto* text = node.as_string()) return std::vector<std::string>{text->get()};
  const toml::array* list = node.as_array();
  if (list == nullptr || list->size() > kListMax) return Wrong(node, key, "a text or a list of texts is needed");
  for (const toml::node& item : *list) {
    const auto* text = item.as_string();
    if (text == nullptr) return Wrong(item, key, "only texts may stand in this list");
    out.push_back(text->get());
  }
  return out;
}

std::string Absolute(const std::string& path, const std::string& directory) { return path.starts_with('/') ? path : directory + "/" + path; }

Status ReadBool(const toml::node& node, std::string_view key, bool& out) {
  const auto* value = node.as_boolean();
  if (value == nullptr) return Wrong(node, key, "true or false is needed, without quotation marks");
  out = value->get();
  return OkStatus();
}

Status ReadCapabilities(const toml::node& node, HostEntry& out) {
  HR_ASSIGN_OR_RETURN(const std::vector<std::string> names, Texts(node, "capabilities"));
  if (names.empty()) return OkStatus();  // as in containerd: all
  out.pull = out.resolve = out.push = false;
  for (std::string name : names) {
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (name == "pull") out.pull = true;
    else if (name == "resolve") out.resolve = true;
    else if (name == "push") out.push = true;
    else if (name != "referrers") return Wrong(node, "capabilities", "\"" + CleanText(name, 40) + "\" is unknown; use \"pull\", \"resolve\", \"push\"");
  }
  return OkStatus();
}

// "a.pem" | ["a.pem", "b.pem"] | [["a.crt", "a.key"], ...]
Status ReadClient(const toml::node& node, const std::string& directory, HostEntry& out) {
  const toml::array* list = node.as_array();
  const bool pairs = list != nullptr && !list->empty() && list->front().is_array();
  if (!pairs) {
    HR_ASSIGN_OR_RETURN(const std::vector<std::string> files, Texts(node, "client"));
    for (const std::string& file : files) out.client.emplace_back(Absolute(file, directory), "");
    return OkStatus();
  }
  if (list->size() > kListMax) return Wrong(node, "client", "too many");
  for (const toml::node& item : *list) {
    HR_ASSIGN_OR_RETURN(const std::vector<std::string> pair, Texts(item, "client"));
    if (pair.empty() || pair.size() > 2) return Wrong(item, "client", "a pair of certificate and key is needed: [\"client.cert\", \"client.key\"]");
    out.client.emplace_back(Absolute(pair[0], directory), pair.size() == 2 && !pair[1].empty() ? Absolute(pair[1], directory) : "");
  }
  return OkStatus();
}

bool IsHeaderName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

Status ReadHeaders(const toml::node& node, HostEntry& out) {
  const toml::table* table = node.as_table();
  if (table == nullptr || table->size() > kListMax) return Wrong(node, "header", "a table is needed: [host.\"...\".header]");
  for (const auto& [name, value] : *table) {
    if (!IsHeaderName(name.str())) return Wrong(value, "header", "\"" + CleanText(name.str(), 60) + "\" is no name of a header");
    HR_ASSIGN_OR_RETURN(const std::vector<std::string> texts, Texts(value, "header." + std::string(name.str())));
    for (const std::string& text : texts) {
      const bool clean = std::none_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 127; });
      if (!clean || text.size() > kHeaderBytesMax) return Wrong(value, "header." + std::string(name.str()), "a line break or control character, or too long");
      out.headers.push_back(std::string(name.str()) + ": " + text);
    }
  }
  return OkStatus();
}

// As Go's time.ParseDuration for whole and decimal numbers: "3s", "500ms", "1m30s".
Result<std::chrono::milliseconds> ParseGoDuration(std::string_view text) {
  const auto bad = [&] { return InvalidArgumentError("\"" + CleanText(text, 40) + "\" is no duration; write for example \"3s\" or \"500ms\""); };
  if (text.empty() || text.size() > 40) return bad();
  double ms = 0;
  while (!text.empty()) {
    // from_chars would read "nan" and "inf" as well, and no comparison refuses a NaN.
    if ((text.front() < '0' || text.front() > '9') && text.front() != '.') return bad();
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (error != std::errc()) return bad();
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    const std::pair<std::string_view, double> units[] = {{"ms", 1}, {"us", 1e-3}, {"ns", 1e-6}, {"s", 1e3}, {"m", 6e4}, {"h", 3.6e6}};
    const auto* unit = std::find_if(std::begin(units), std::end(units), [&](const auto& u) { return text.starts_with(u.first); });
    if (unit == std::end(units)) return bad();
    text.remove_prefix(unit->first.size());
    ms += number * unit->second;
  }
  if (ms > 3.6e6) return bad();
  return std::chrono::milliseconds(static_cast<int64_t>(ms));
}

Status ReadTimeout(const toml::node& node, HostEntry& out) {
  const auto* text = node.as_string();
  if (text == nullptr) return Wrong(node, "dial_timeout", "a text is needed, such as \"3s\"");
  auto duration = ParseGoDuration(text->get());
  if (!duration.ok()) return Wrong(node, "dial_timeout", duration.status().message());
  out.dial_timeout = *duration;
  return OkStatus();
}

// `known` are keys that the caller reads itself.
Status ReadEntry(const toml::table& table, const std::string& directory, std::initializer_list<std::string_view> known, HostEntry& out,
                 std::vector<std::string>& unknown) {
  for (const auto& [key_node, node] : table) {
    const std::string_view key = key_node.str();
    Status status;
    if (key == "capabilities") status = ReadCapabilities(node, out);
    else if (key == "skip_verify") status = ReadBool(node, key, out.skip_verify);
    else if (key == "override_path") status = ReadBool(node, key, out.override_path);
    else if (key == "client") status = ReadClient(node, directory, out);
    else if (key == "header") status = ReadHeaders(node, out);
    else if (key == "dial_timeout") status = ReadTimeout(node, out);
    else if (key == "ca") {
      auto files = Texts(node, key);
      status = files.status();
      for (const std::string& file : files.ok() ? *files : std::vector<std::string>()) out.ca.push_back(Absolute(file, directory));
    } else if (std::find(known.begin(), known.end(), key) == known.end() && unknown.size() < kListMax) {
      unknown.push_back(CleanText(key, 60) + " (" + Line(node) + ")");
    }
    HR_RETURN_IF_ERROR(status);
  }
  return OkStatus();
}

// "host", "host:port" and "https://host/path" alike.
Result<Url> ParseHost(std::string_view text, const toml::node& node, const std::string& key) {
  if (text.size() > kUrlBytesMax) return Wrong(node, key, "too long");
  std::string url(text);
  if (url.find("://") == std::string::npos) url = "https://" + url;
  auto parsed = Url::Parse(url);
  if (!parsed.ok()) return Wrong(node, key, parsed.status().message() + "; write for example \"https://mirror.example\"");
  if (parsed->target.find('?') != std::string::npos) return Wrong(node, key, "a query may not stand here");
  return parsed;
}

Status ReadMirrors(const toml::table& hosts, const std::string& directory, HostsFile& out) {
  if (hosts.size() > kHostsMax) return Wrong(hosts, "host", "more than 64 mirrors");
  // The order of the file is the order in which they are asked; the parser's tables are sorted by name.
  std::vector<std::pair<std::string_view, const toml::node*>> ordered;
  for (const auto& [name, node] : hosts) ordered.emplace_back(name.str(), &node);
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    const auto place = [](const toml::node& n) { return std::pair(n.source().begin.line, n.source().begin.column); };
    return place(*a.second) < place(*b.second);
  });
  for (const auto& [name, node] : ordered) {
    const std::string key = "host.\"" + CleanText(name, 100) + "\"";
    const toml::table* table = node->as_table();
    if (table == nullptr) return Wrong(*node, key, "a table is needed: [" + key + "]");
    HostEntry entry;
    HR_ASSIGN_OR_RETURN(entry.url, ParseHost(name, *node, key));
    HR_RETURN_IF_ERROR(ReadEntry(*table, directory, {}, entry, out.unknown).Annotate("[" + key + "]"));
    out.mirrors.push_back(std::move(entry));
  }
  return OkStatus();
}

}  // namespace

Result<HostsFile> ParseHostsToml(std::string_view text, const std::string& directory) {
  try {
    const toml::table root = toml::parse(text);
    HostsFile out;
    HR_RETURN_IF_ERROR(ReadEntry(root, directory, {"server", "host"}, out.server, out.unknown));
    if (const toml::node* server = root.get("server")) {
      const auto* url = server->as_string();
      if (url == nullptr) return Wrong(*server, "server", "a text is needed, such as \"https://registry.example\"");
      if (!url->get().empty()) {
        HR_ASSIGN_OR_RETURN(out.server.url, ParseHost(url->get(), *server, "server"));
      }
    }
    if (const toml::node* hosts = root.get("host")) {
      const toml::table* table = hosts->as_table();
      if (table == nullptr) return Wrong(*hosts, "host", "tables are needed: [host.\"https://mirror.example\"]");
      HR_RETURN_IF_ERROR(ReadMirrors(*table, directory, out));
    }
    return out;
  } catch (const toml::parse_error& error) {
    return InvalidArgumentError("line " + std::to_string(error.source().begin.line) + ": not TOML: " + CleanText(error.description(), 200));
  }
}

}  // namespace headrace::registry
