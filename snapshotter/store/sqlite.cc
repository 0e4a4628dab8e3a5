#include "snapshotter/store/sqlite.h"

#include <sqlite3.h>

#include "fusefs/base/log.h"

namespace headrace::snapshotter::sqlite {

Statement::~Statement() {
  if (stmt_ == nullptr) return;
  // The return value repeats the failure of the last step, which Step() reported.
  sqlite3_reset(stmt_);
  sqlite3_clear_bindings(stmt_);
}

void Statement::Check(int rc, const char* what) {
  if (rc != SQLITE_OK && status_.ok()) status_ = connection_->Error(rc, what);
}

Statement& Statement::Bind(int index, std::string_view bytes) {
  // A null pointer would bind NULL instead of the empty blob.
  const char* data = bytes.empty() ? "" : bytes.data();
  if (status_.ok())
    Check(sqlite3_bind_blob64(stmt_, index, data, bytes.size(), SQLITE_TRANSIENT), "bind");
  return *this;
}

Statement& Statement::Bind(int index, int64_t value) {
  if (status_.ok()) Check(sqlite3_bind_int64(stmt_, index, value), "bind");
  return *this;
}

Statement& Statement::BindNull(int index) {
  if (status_.ok()) Check(sqlite3_bind_null(stmt_, index), "bind");
  return *this;
}

Result<bool> Statement::Step() {
  if (!status_.ok()) return status_;
  int rc = sqlite3_step(stmt_);
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  return connection_->Error(rc, "step");
}

Status Statement::Run() {
  Result<bool> row = Step();
  return row.ok() ? OkStatus() : row.status();
}

int64_t Statement::Int(int column) const { return sqlite3_column_int64(stmt_, column); }

std::string Statement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(stmt_, column);
  int size = sqlite3_column_bytes(stmt_, column);
  if (data == nullptr || size <= 0) return {};
  return {static_cast<const char*>(data), static_cast<size_t>(size)};
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(stmt_, column) == SQLITE_NULL;
}

Result<std::unique_ptr<Connection>> Connection::Open(const std::string& path, bool writer) {
  sqlite3* db = nullptr;
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE | (writer ? SQLITE_OPEN_CREATE : 0);
  int rc = sqlite3_open_v2(path.c_str(), &db, flags, nullptr);
  std::unique_ptr<Connection> connection(new Connection(path, db));
  if (rc != SQLITE_OK) return connection->Error(rc, "open");
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, 5000);
  HR_RETURN_IF_ERROR(connection->Execute("PRAGMA foreign_keys = ON"));
  return connection;
}

Connection::~Connection() {
  for (auto& [sql, stmt] : statements_) sqlite3_finalize(stmt);
  if (db_ != nullptr && sqlite3_close(db_) != SQLITE_OK)
    log::Error("database did not close path={}", path_);
}

Status Connection::Execute(const std::string& sql) {
  int rc = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return Error(rc, sql.substr(0, 60));
  return {};
}

Statement Connection::Prepare(const char* sql) {
  auto found = statements_.find(sql);
  if (found != statements_.end()) return Statement(this, found->second, OkStatus());
  sqlite3_stmt* stmt = nullptr;
  int rc = sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, nullptr);
  if (rc != SQLITE_OK) return Statement(this, nullptr, Error(rc, sql));
  statements_.emplace(sql, stmt);
  return Statement(this, stmt, OkStatus());
}

int64_t Connection::changes() const { return sqlite3_changes64(db_); }

Status Connection::Error(int rc, std::string_view what) const {
  std::string message = "database " + path_ + ": " + std::string(what) + ": " +
                        (db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(rc));
  switch (rc & 0xff) {
    case SQLITE_FULL:
      return ResourceExhaustedError(std::move(message) + " (free some space on its file system)");
    case SQLITE_NOMEM:
      return ResourceExhaustedError(std::move(message));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return UnavailableError(std::move(message));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return DataLossError(std::move(message));
    default:
      return InternalError(std::move(message));
  }
}

Transaction::Transaction(Connection* connection, Mode mode) : connection_(connection) {
  status_ = connection_->Prepare(mode == Mode::kWrite ? "BEGIN IMMEDIATE" : "BEGIN").Run();
  open_ = status_.ok();
}

Transaction::~Transaction() {
  if (!open_) return;
  Status status = connection_->Prepare("ROLLBACK").Run();
  if (!status.ok()) log::Warn("rollback failed error=\"{}\"", status.ToString());
}

Status Transaction::Commit() {
  HR_RETURN_IF_ERROR(status_);
  HR_RETURN_IF_ERROR(connection_->Prepare("COMMIT").Run());
  open_ = false;
  return {};
}

}  // namespace headrace::snapshotter::sqlite
