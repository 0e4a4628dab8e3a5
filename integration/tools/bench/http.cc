#include "integration/tools/bench/http.h"

#include <algorithm>
#include <cctype>

#include "fusefs/base/text.h"

namespace headrace::bench {
namespace {

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

const char* Reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 206: return "Partial Content";
    case 307: return "Temporary Redirect";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 416: return "Range Not Satisfiable";
    default: return "Error";
  }
}

}  // namespace

std::string HttpRequest::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

std::optional<HttpRequest> ParseRequest(std::string_view input, size_t& used) {
  used = 0;
  const size_t end = input.find("\r\n\r\n");
  if (end == std::string_view::npos || end > kHeadBytesMax) {
    if (input.size() > kHeadBytesMax) used = input.size();
    return std::nullopt;
  }
  used = end + 4;
  const std::vector<std::string_view> lines = Split(input.substr(0, end), '\n');
  const std::vector<std::string_view> words = Split(Trim(lines[0]), ' ');
  if (words.size() != 3 || !words[1].starts_with('/') || !words[2].starts_with("HTTP/1.")) return std::nullopt;
  HttpRequest request;
  request.method = words[0];
  const size_t question = words[1].find('?');
  request.path = words[1].substr(0, question);
  if (question != std::string_view::npos) request.query = words[1].substr(question + 1);
  for (size_t i = 1; i < lines.size(); ++i) {
    const size_t colon = lines[i].find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    request.headers[Lower(lines[i].substr(0, colon))] = Trim(lines[i].substr(colon + 1));
  }
  // A body would be taken for the next request: none is expected, so such a connection ends after its answer.
  const std::string length = request.header("content-length");
  const bool body = (!length.empty() && length != "0") || !request.header("transfer-encoding").empty();
  request.keep_alive = words[2] == "HTTP/1.1" && Lower(request.header("connection")) != "close" && !body;
  return request;
}

RangeKind ParseRange(std::string_view header, uint64_t size, ByteRange& range) {
  range = {0, size};
  const std::string_view unit = "bytes=";
  if (!header.starts_with(unit) || header.find(',') != std::string_view::npos) return RangeKind::kWhole;
  const std::string_view spec = Trim(header.substr(unit.size()));
  const size_t dash = spec.find('-');
  if (dash == std::string_view::npos) return RangeKind::kWhole;
  const Result<uint64_t> first = ParseU64(spec.substr(0, dash));
  const Result<uint64_t> last = ParseU64(spec.substr(dash + 1));
  if (dash == 0) {  // the last bytes
    if (!last.ok()) return RangeKind::kWhole;
    if (*last == 0 || size == 0) return RangeKind::kUnsatisfiable;
    range.begin = size - std::min(size, *last);
    return RangeKind::kPart;
  }
  if (!first.ok() || (dash + 1 < spec.size() && (!last.ok() || *last < *first))) return RangeKind::kWhole;
  if (*first >= size) return RangeKind::kUnsatisfiable;
  range.begin = *first;
  if (last.ok() && *last < size) range.end = *last + 1;
  return RangeKind::kPart;
}

HttpResponse HttpResponse::Text(int status, std::string type, std::string body) {
  HttpResponse response;
  response.status = status;
  response.headers.emplace_back("Content-Type", std::move(type));
  response.content_length = body.size();
  response.body = std::move(body);
  return response;
}

HttpResponse HttpResponse::Error(int status, const std::string& code, const std::string& message) {
  return Text(status, "application/json", "{\"errors\":[{\"code\":\"" + code + "\",\"message\":\"" + message + "\"}]}\n");
}

std::string HttpResponse::Head(bool keep_alive) const {
  std::string out = "HTTP/1.1 " + std::to_string(status) + " " + Reason(status) + "\r\n";
  out += "Docker-Distribution-Api-Version: registry/2.0\r\nContent-Length: " + std::to_string(content_length) + "\r\n";
  for (const auto& [name, value] : headers) out += name + ": " + value + "\r\n";
  if (!keep_alive) out += "Connection: close\r\n";
  return out + "\r\n";
}

}  // namespace headrace::bench
