// The little HTTP/1.1 that bench-blobserver speaks: request heads in, response heads out. Pure.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_HTTP_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_HTTP_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace headrace::bench {

inline constexpr size_t kHeadBytesMax = 16 << 10;

struct HttpRequest {
  std::string method;
  std::string path;   // without the query
  std::string query;  // without '?'
  std::map<std::string, std::string> headers;  // names in lower case
  bool keep_alive = true;

  std::string header(const std::string& name) const;
};

// The first request of `input`, without a body; `used` becomes its bytes. nullopt with `used` 0: not complete yet; nullopt with
// `used` > 0: not HTTP, or more than kHeadBytesMax.
std::optional<HttpRequest> ParseRequest(std::string_view input, size_t& used);

struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

enum class RangeKind { kWhole, kPart, kUnsatisfiable };
// What a Range header asks of `size` bytes (RFC 9110 section 14). Several ranges, other units and nonsense are ignored, as the RFC
// allows: kWhole.
RangeKind ParseRange(std::string_view header, uint64_t size, ByteRange& range);

struct HttpResponse {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;              // small answers; blobs are sent from their file
  uint64_t content_length = 0;   // of what HEAD does not send and a blob does

  static HttpResponse Text(int status, std::string type, std::string body);
  static HttpResponse Error(int status, const std::string& code, const std::string& message);
  // Status line and headers, with the empty line.
  std::string Head(bool keep_alive) const;
};

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_HTTP_H_
