// Thin ownership over SQLite's C interface: connections, prepared statements, transactions. The
// only user of sqlite3.h beside its .cc. A Connection and its statements belong to one thread at a
// time (meta_store.h sees to that). All calls block on the local disk. Errors: SQLITE_FULL is
// ResourceExhausted, BUSY Unavailable, CORRUPT and NOTADB DataLoss, the rest Internal; all name the
// file.
#ifndef HEADRACE_SNAPSHOTTER_STORE_SQLITE_H_
#define HEADRACE_SNAPSHOTTER_STORE_SQLITE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace headrace::snapshotter::sqlite {

class Connection;

// One execution of a cached prepared statement; reset when it goes. Parameters are numbered from 1,
// columns from 0.
class Statement {
 public:
  Statement(Connection* connection, sqlite3_stmt* stmt, Status status)
      : connection_(connection), stmt_(stmt), status_(std::move(status)) {}
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Text is bound as a blob: names are bytes, whatever they contain.
  Statement& Bind(int index, std::string_view bytes);
  Statement& Bind(int index, int64_t value);
  Statement& Bind(int index, uint64_t value) { return Bind(index, static_cast<int64_t>(value)); }
  Statement& BindNull(int index);
  // True: a row is there.
  Result<bool> Step();
  // For statements without rows.
  Status Run();

  int64_t Int(int column) const;
  std::string Bytes(int column) const;
  bool IsNull(int column) const;

 private:
  void Check(int rc, const char* what);
  Connection* connection_;
  sqlite3_stmt* stmt_;
  Status status_;  // the first failure; later calls do nothing and Step reports it
};

class Connection {
 public:
  // Opens (a writer creates) the database file with foreign keys on and a busy timeout.
  static Result<std::unique_ptr<Connection>> Open(const std::string& path, bool writer);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Runs statements that have no parameters and whose rows nobody wants (schema, pragmas).
  Status Execute(const std::string& sql);
  // `sql` must outlive the connection (a literal): it is the key of the statement cache.
  Statement Prepare(const char* sql);
  int64_t changes() const;
  Status Error(int rc, std::string_view what) const;

 private:
  Connection(std::string path, sqlite3* db) : path_(std::move(path)), db_(db) {}
  std::string path_;
  sqlite3* db_;
  std::map<const char*, sqlite3_stmt*> statements_;
};

// BEGIN ... COMMIT; rolls back when it goes without Commit().
class Transaction {
 public:
  enum class Mode { kRead, kWrite };
  Transaction(Connection* connection, Mode mode);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  Status status() const { return status_; }  // of the BEGIN
  Status Commit();

 private:
  Connection* connection_;
  Status status_;
  bool open_ = false;
};

}  // namespace headrace::snapshotter::sqlite

#endif  // HEADRACE_SNAPSHOTTER_STORE_SQLITE_H_
