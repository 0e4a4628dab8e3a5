// Rows of the database as values; used inside a transaction that the caller holds. Internal to
// store/.
#ifndef HEADRACE_SNAPSHOTTER_STORE_ROWS_H_
#define HEADRACE_SNAPSHOTTER_STORE_ROWS_H_

#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/store/info.h"
#include "snapshotter/store/sqlite.h"

namespace headrace::snapshotter::rows {

// NotFound.
Result<Record> Get(sqlite::Connection* db, const std::string& name);
Result<bool> Exists(sqlite::Connection* db, const std::string& name);
// The record, then its ancestors from the immediate parent up. NotFound.
Result<std::vector<Record>> Chain(sqlite::Connection* db, const std::string& name);
Result<std::optional<Record>> FindLazy(sqlite::Connection* db, const std::string& ref,
                                       const std::string& parent);

enum class Which { kAll, kLazy, kUnmeasured };
// In the order of ids.
Result<std::vector<Record>> Select(sqlite::Connection* db, Which which);

// Labels with empty values are dropped from the record and not written.
Status Insert(sqlite::Connection* db, Record* record, std::optional<uint64_t> parent_id);
Status ReplaceLabels(sqlite::Connection* db, uint64_t id, Labels* labels);

}  // namespace headrace::snapshotter::rows

#endif  // HEADRACE_SNAPSHOTTER_STORE_ROWS_H_
