// Logging: one line per event, fields as key=value, through spdlog to standard error. The level can be changed at run time.
// error = an operator must act, warn = degraded but served, info = lifecycle, debug = per operation, trace = per chunk.
// Never log credentials or Authorization headers. The log sink is the only global of the project.
//   log::Info("layer attached layer={} chunks={}", digest, n);
#ifndef HEADRACE_FUSEFS_BASE_LOG_H_
#define HEADRACE_FUSEFS_BASE_LOG_H_

#if !defined(SPDLOG_COMPILED_LIB) && !defined(HEADRACE_SPDLOG_FROM_HEADERS)
#error "this target does not link spdlog: it would have a second logger of its own, beside the library's"
#endif
#include <spdlog/spdlog.h>

#include <string_view>

#include "fusefs/base/status.h"

namespace headrace::log {

template <typename... Args>
void Error(spdlog::format_string_t<Args...> fmt, Args&&... args) { spdlog::error(fmt, std::forward<Args>(args)...); }
template <typename... Args>
void Warn(spdlog::format_string_t<Args...> fmt, Args&&... args) { spdlog::warn(fmt, std::forward<Args>(args)...); }
template <typename... Args>
void Info(spdlog::format_string_t<Args...> fmt, Args&&... args) { spdlog::info(fmt, std::forward<Args>(args)...); }
template <typename... Args>
void Debug(spdlog::format_string_t<Args...> fmt, Args&&... args) { spdlog::debug(fmt, std::forward<Args>(args)...); }
template <typename... Args>
void Trace(spdlog::format_string_t<Args...> fmt, Args&&... args) { spdlog::trace(fmt, std::forward<Args>(args)...); }

// Sets up the sink (standard error, UTC time stamps) and the level: trace, debug, info, warn, error, off.
// The level of the logger that is set up; any thread.
Status SetLevel(std::string_view level);
Status Setup(std::string_view program, std::string_view level);

}  // namespace headrace::log

#endif  // HEADRACE_FUSEFS_BASE_LOG_H_
