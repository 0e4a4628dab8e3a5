#include "fusefs/base/status.h"

#include <cerrno>
#include <cstring>

namespace headrace {

std::string_view StatusCodeName(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return "OK";
    case StatusCode::kCancelled: return "CANCELLED";
    case StatusCode::kUnknown: return "UNKNOWN";
    case StatusCode::kInvalidArgument: return "INVALID_ARGUMENT";
    case StatusCode::kDeadlineExceeded: return "DEADLINE_EXCEEDED";
    case StatusCode::kNotFound: return "NOT_FOUND";
    case StatusCode::kAlreadyExists: return "ALREADY_EXISTS";
    case StatusCode::kPermissionDenied: return "PERMISSION_DENIED";
    case StatusCode::kResourceExhausted: return "RESOURCE_EXHAUSTED";
    case StatusCode::kFailedPrecondition: return "FAILED_PRECONDITION";
    case StatusCode::kAborted: return "ABORTED";
    case StatusCode::kOutOfRange: return "OUT_OF_RANGE";
    case StatusCode::kUnimplemented: return "UNIMPLEMENTED";
    case StatusCode::kInternal: return "INTERNAL";
    case StatusCode::kUnavailable: return "UNAVAILABLE";
    case StatusCode::kDataLoss: return "DATA_LOSS";
    case StatusCode::kUnauthenticated: return "UNAUTHENTICATED";
  }
  return "UNKNOWN";
}

namespace {

StatusCode CodeOfErrno(int err) {
  switch (err) {
    case ENOENT: case ENODEV: case ENXIO: return StatusCode::kNotFound;
    case EEXIST: return StatusCode::kAlreadyExists;
    case EINVAL: case ENAMETOOLONG: case ENOTDIR: case EISDIR: return StatusCode::kInvalidArgument;
    case EACCES: case EPERM: case EROFS: return StatusCode::kPermissionDenied;
    case ENOSPC: case EDQUOT: case ENOMEM: case EMFILE: case ENFILE: return StatusCode::kResourceExhausted;
    case EBUSY: case ENOTEMPTY: return StatusCode::kFailedPrecondition;
    case ETIMEDOUT: return StatusCode::kDeadlineExceeded;
    case ECANCELED: case EINTR: return StatusCode::kCancelled;
    case ECONNREFUSED: case ECONNRESET: case EPIPE: case EHOSTUNREACH: case ENETUNREACH: case EAGAIN:
      return StatusCode::kUnavailable;
    case EOPNOTSUPP: case ENOSYS: return StatusCode::kUnimplemented;
    default: return StatusCode::kInternal;
  }
}

}  // namespace

Status Status::FromErrno(int err, std::string_view what) {
  std::string message(what);
  message += ": ";
  message += std::strerror(err);
  return Status(CodeOfErrno(err), std::move(message)).WithErrno(err == ENOSYS ? EOPNOTSUPP : err);
}

Status Status::Annotate(std::string_view context) const& {
  if (ok()) return {};
  Status out = *this;
  out.message_ = std::string(context) + ": " + message_;
  return out;
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  return std::string(StatusCodeName(code_)) + ": " + message_;
}

int StatusToErrno(const Status& status) {
  if (status.ok()) return 0;
  if (status.errno_override() != 0) return status.errno_override();
  switch (status.code()) {
    case StatusCode::kOk: return 0;
    case StatusCode::kCancelled: return EINTR;
    case StatusCode::kUnknown: return EIO;
    case StatusCode::kInvalidArgument: return EINVAL;
    case StatusCode::kDeadlineExceeded: return ETIMEDOUT;
    case StatusCode::kNotFound: return ENOENT;
    case StatusCode::kAlreadyExists: return EEXIST;
    case StatusCode::kPermissionDenied: return EACCES;
    case StatusCode::kResourceExhausted: return ENOMEM;
    case StatusCode::kFailedPrecondition: return EBUSY;
    case StatusCode::kAborted: return EIO;
    case StatusCode::kOutOfRange: return EINVAL;
    case StatusCode::kUnimplemented: return EOPNOTSUPP;
    case StatusCode::kInternal: return EIO;
    case StatusCode::kUnavailable: return EIO;
    case StatusCode::kDataLoss: return EIO;
    case StatusCode::kUnauthenticated: return EACCES;
  }
  return EIO;
}

}  // namespace headrace
