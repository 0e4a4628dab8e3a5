#include "snapshotter/store/rows.h"

namespace headrace::snapshotter::rows {
namespace {

using sqlite::Connection;
using sqlite::Statement;

#define HEADRACE_SNAPSHOT_COLUMNS                                                                  \
  "SELECT s.id, s.name, p.name, s.kind, s.created_ns, s.updated_ns, s.size, s.inodes, l.snapshot," \
  " l.image_ref, l.manifest_digest, l.blob_digest, l.toc, l.above_foreign"
#define HEADRACE_SNAPSHOT_TABLES                                                                   \
  " FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent LEFT JOIN layers l ON l.snapshot = " \
  "s.id"

Record ReadRecord(const Statement& row) {
  Record record;
  record.id = static_cast<uint64_t>(row.Int(0));
  record.info.name = row.Bytes(1);
  record.info.parent = row.Bytes(2);
  record.info.kind = static_cast<Kind>(row.Int(3));
  record.info.created_ns = row.Int(4);
  record.info.updated_ns = row.Int(5);
  if (!row.IsNull(6)) record.usage = Usage{row.Int(6), row.Int(7)};
  if (!row.IsNull(8))
    record.lazy =
        LazyLayer{row.Bytes(9), row.Bytes(10), row.Bytes(11), row.Bytes(12), row.Int(13) != 0};
  return record;
}

Status ReadLabels(Connection* db, Record* record) {
  Statement query = db->Prepare("SELECT key, value FROM labels WHERE snapshot = ?");
  query.Bind(1, record->id);
  for (;;) {
    HR_ASSIGN_OR_RETURN(bool row, query.Step());
    if (!row) return {};
    record->info.labels.emplace(query.Bytes(0), query.Bytes(1));
  }
}

// All rows of `query`, labels included.
Result<std::vector<Record>> ReadAll(Connection* db, Statement* query) {
  std::vector<Record> out;
  for (;;) {
    HR_ASSIGN_OR_RETURN(bool row, query->Step());
    if (!row) return out;
    out.push_back(ReadRecord(*query));
    HR_RETURN_IF_ERROR(ReadLabels(db, &out.back()));
  }
}

}  // namespace

Result<Record> Get(Connection* db, const std::string& name) {
  Statement query =
      db->Prepare(HEADRACE_SNAPSHOT_COLUMNS HEADRACE_SNAPSHOT_TABLES " WHERE s.name = ?");
  query.Bind(1, name);
  HR_ASSIGN_OR_RETURN(std::vector<Record> found, ReadAll(db, &query));
  if (found.empty()) return NotFoundError("snapshot " + name + " does not exist");
  return std::move(found.front());
}

Result<bool> Exists(Connection* db, const std::string& name) {
  return db->Prepare("SELECT 1 FROM snapshots WHERE name = ?").Bind(1, name).Step();
}

Result<std::vector<Record>> Chain(Connection* db, const std::string& name) {
  Statement query = db->Prepare(
      "WITH RECURSIVE chain(id, depth) AS ("
      " SELECT id, 0 FROM snapshots WHERE name = ?"
      " UNION ALL SELECT c.parent, chain.depth + 1 FROM chain JOIN snapshots c ON c.id = chain.id"
      " WHERE c.parent IS NOT NULL) " HEADRACE_SNAPSHOT_COLUMNS
      " FROM chain JOIN snapshots s ON s.id = chain.id"
      " LEFT JOIN snapshots p ON p.id = s.parent LEFT JOIN layers l ON l.snapshot = s.id ORDER BY "
      "chain.depth");
  query.Bind(1, name);
  HR_ASSIGN_OR_RETURN(std::vector<Record> chain, ReadAll(db, &query));
  if (chain.empty()) return NotFoundError("snapshot " + name + " does not exist");
  return chain;
}

Result<std::optional<Record>> FindLazy(Connection* db, const std::string& ref,
                                       const std::string& parent) {
  Statement query =
      db->Prepare(HEADRACE_SNAPSHOT_COLUMNS HEADRACE_SNAPSHOT_TABLES
                  " JOIN labels r ON r.snapshot = s.id"
                  " WHERE r.key = CAST('containerd.io/snapshot.ref' AS BLOB) AND r.value = ?1"
                  " AND l.snapshot IS NOT NULL AND s.kind = 3 AND ifnull(p.name, x'') = ?2"
                  " ORDER BY s.id LIMIT 1");
  query.Bind(1, ref).Bind(2, parent);
  HR_ASSIGN_OR_RETURN(std::vector<Record> found, ReadAll(db, &query));
  if (found.empty()) return std::optional<Record>();
  return std::optional<Record>(std::move(found.front()));
}

Result<std::vector<Record>> Select(Connection* db, Which which) {
  const char* sql = nullptr;
  switch (which) {
    case Which::kAll:
      sql = HEADRACE_SNAPSHOT_COLUMNS HEADRACE_SNAPSHOT_TABLES " ORDER BY s.id";
      break;
    case Which::kLazy:
      sql = HEADRACE_SNAPSHOT_COLUMNS HEADRACE_SNAPSHOT_TABLES
          " WHERE l.snapshot IS NOT NULL ORDER BY s.id";
      break;
    case Which::kUnmeasured:
      sql = HEADRACE_SNAPSHOT_COLUMNS HEADRACE_SNAPSHOT_TABLES
          " WHERE l.snapshot IS NULL AND s.kind = 3 AND s.size IS NULL ORDER BY s.id";
      break;
  }
  Statement query = db->Prepare(sql);
  return ReadAll(db, &query);
}

Status Insert(Connection* db, Record* record, std::optional<uint64_t> parent_id) {
  const Info& info = record->info;
  {
    Statement insert = db->Prepare(
        "INSERT INTO snapshots (id, name, parent, kind, created_ns, updated_ns) VALUES (?, ?, ?, "
        "?, ?, ?)");
    insert.Bind(1, record->id).Bind(2, info.name);
    if (parent_id) {
      insert.Bind(3, *parent_id);
    } else {
      insert.BindNull(3);
    }
    insert.Bind(4, static_cast<int64_t>(info.kind))
        .Bind(5, info.created_ns)
        .Bind(6, info.updated_ns);
    HR_RETURN_IF_ERROR(insert.Run());
  }
  if (record->lazy) {
    const LazyLayer& lazy = *record->lazy;
    HR_RETURN_IF_ERROR(
        db->Prepare("INSERT INTO layers (snapshot, image_ref, manifest_digest, blob_digest, toc, "
                    "above_foreign) VALUES (?, ?, ?, ?, ?, ?)")
            .Bind(1, record->id)
            .Bind(2, lazy.image_ref)
            .Bind(3, lazy.manifest_digest)
            .Bind(4, lazy.blob_digest)
            .Bind(5, lazy.toc)
            .Bind(6, int64_t{lazy.above_foreign ? 1 : 0})
            .Run());
  }
  return ReplaceLabels(db, record->id, &record->info.labels);
}

Status ReplaceLabels(Connection* db, uint64_t id, Labels* labels) {
  std::erase_if(*labels, [](const auto& label) { return label.second.empty(); });
  HR_RETURN_IF_ERROR(db->Prepare("DELETE FROM labels WHERE snapshot = ?").Bind(1, id).Run());
  for (const auto& [key, value] : *labels) {
    HR_RETURN_IF_ERROR(db->Prepare("INSERT INTO labels (snapshot, key, value) VALUES (?, ?, ?)")
                           .Bind(1, id)
                           .Bind(2, key)
                           .Bind(3, value)
                           .Run());
  }
  return {};
}

}  // namespace headrace::snapshotter::rows
