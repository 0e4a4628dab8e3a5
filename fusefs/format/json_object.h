// Reading JSON documents from outside with nlohmann's library: bounded in size and depth, exceptions turned into a Status.
// Pure; any thread. Errors: ResourceExhausted (over a limit), InvalidArgument (not an object, or not what was asked of it).
#ifndef HEADRACE_FUSEFS_FORMAT_JSON_OBJECT_H_
#define HEADRACE_FUSEFS_FORMAT_JSON_OBJECT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"

namespace headrace::format {

// The document as a JSON object; `what` names it in errors.
Result<nlohmann::json> ParseJsonObject(std::string_view text, uint64_t size_max, std::string_view what);

// Runs `body`, which uses nlohmann's throwing accessors, and turns what they throw into a Status.
template <typename Body>
auto GuardJson(std::string_view what, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const nlohmann::json::exception& e) {
    return InvalidArgumentError(std::string(what) + " is malformed: " + e.what());
  }
}

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_JSON_OBJECT_H_
