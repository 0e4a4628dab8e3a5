// Status and Result<T>: how every fallible call of Headrace below the edges reports failure.
//
// Codes are the canonical gRPC codes. They are mapped to gRPC and to errno once each, in the two total tables of this folder
// (StatusToErrno here; snapshotter/service maps to gRPC by value). Context is added on the way up with Annotate().
// Thread-safe as a value: const methods may be called by many threads at once. Copy costs a string.
#ifndef HEADRACE_FUSEFS_BASE_STATUS_H_
#define HEADRACE_FUSEFS_BASE_STATUS_H_

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace headrace {

// The numbers are gRPC's (grpc/status.h), so that the service edge can cast.
enum class StatusCode : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}
  // For failures of system calls: the code follows errno, the errno is kept for the FUSE edge.
  static Status FromErrno(int err, std::string_view what);

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // The errno that a file system should answer when it differs from the code's own (0: none).
  int errno_override() const { return errno_; }
  Status WithErrno(int err) && {
    errno_ = err;
    return std::move(*this);
  }
  // How long who failed wants to be left alone before another try (a registry's Retry-After); 0: said nothing. Whoever chooses a pause bounds it.
  std::chrono::milliseconds retry_after() const { return retry_after_; }
  Status WithRetryAfter(std::chrono::milliseconds wish) && {
    retry_after_ = wish;
    return std::move(*this);
  }
  // The same status in other words.
  Status WithMessage(std::string message) && {
    message_ = std::move(message);
    return std::move(*this);
  }
  // "context: message"; OK stays OK.
  Status Annotate(std::string_view context) const&;
  std::string ToString() const;  // "DATA_LOSS: layer sha256:...: ..."

 private:
  StatusCode code_ = StatusCode::kOk;
  int errno_ = 0;
  std::chrono::milliseconds retry_after_{0};
  std::string message_;
};

inline Status OkStatus() { return {}; }
inline Status CancelledError(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status UnknownError(std::string m) { return {StatusCode::kUnknown, std::move(m)}; }
inline Status InvalidArgumentError(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
inline Status DeadlineExceededError(std::string m) { return {StatusCode::kDeadlineExceeded, std::move(m)}; }
inline Status NotFoundError(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status AlreadyExistsError(std::string m) { return {StatusCode::kAlreadyExists, std::move(m)}; }
inline Status PermissionDeniedError(std::string m) { return {StatusCode::kPermissionDenied, std::move(m)}; }
inline Status ResourceExhaustedError(std::string m) { return {StatusCode::kResourceExhausted, std::move(m)}; }
inline Status FailedPreconditionError(std::string m) { return {StatusCode::kFailedPrecondition, std::move(m)}; }
inline Status AbortedError(std::string m) { return {StatusCode::kAborted, std::move(m)}; }
inline Status OutOfRangeError(std::string m) { return {StatusCode::kOutOfRange, std::move(m)}; }
inline Status UnimplementedError(std::string m) { return {StatusCode::kUnimplemented, std::move(m)}; }
inline Status InternalError(std::string m) { return {StatusCode::kInternal, std::move(m)}; }
inline Status UnavailableError(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
inline Status DataLossError(std::string m) { return {StatusCode::kDataLoss, std::move(m)}; }
inline Status UnauthenticatedError(std::string m) { return {StatusCode::kUnauthenticated, std::move(m)}; }

// The one table from Status to errno (style guide section 12). Never ENOSYS: the kernel remembers that for ever.
int StatusToErrno(const Status& status);

// A value or the Status that says why there is none. Never holds an OK status.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<1>, std::move(value)) {}  // NOLINT: implicit on purpose
  Result(Status status) : state_(std::in_place_index<0>, std::move(status)) {  // NOLINT
    if (std::get<0>(state_).ok()) {
      std::fputs("headrace: Result made from an OK status\n", stderr);
      std::abort();
    }
  }

  bool ok() const { return state_.index() == 1; }
  Status status() const { return ok() ? OkStatus() : std::get<0>(state_); }

  // REQUIRES: ok().
  T& value() & { return std::get<1>(state_); }
  const T& value() const& { return std::get<1>(state_); }
  T&& value() && { return std::get<1>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<Status, T> state_;
};

}  // namespace headrace

#define HR_CONCAT_INNER(a, b) a##b
#define HR_CONCAT(a, b) HR_CONCAT_INNER(a, b)

// Returns the status from the enclosing function if it is not OK.
#define HR_RETURN_IF_ERROR(expr)                      \
  do {                                                \
    if (::headrace::Status hr_status_ = (expr); !hr_status_.ok()) return hr_status_; \
  } while (false)

// HR_ASSIGN_OR_RETURN(auto x, Call());  -- assigns the value or returns the status.
#define HR_ASSIGN_OR_RETURN(lhs, expr) HR_ASSIGN_OR_RETURN_IMPL(HR_CONCAT(hr_result_, __LINE__), lhs, expr)
#define HR_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                             \
  if (!result.ok()) return result.status();         \
  lhs = std::move(result).value()

// Broken invariants of our own (never input): prints and aborts, in every build.
#define HEADRACE_CHECK(cond)                                                                  \
  do {                                                                                        \
    if (!(cond)) {                                                                            \
      std::fprintf(stderr, "headrace: CHECK failed at %s:%d: %s\n", __FILE__, __LINE__, #cond); \
      std::abort();                                                                           \
    }                                                                                         \
  } while (false)

#endif  // HEADRACE_FUSEFS_BASE_STATUS_H_
