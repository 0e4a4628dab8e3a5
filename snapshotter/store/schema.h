// The database schema, version 1. The version is SQLite's user_version; application_id says that
// the file is ours ("HRsn").
//
//   snapshots  one row per snapshot; parent is the id of another row; usage is NULL until measured
//   labels     of snapshots, never with an empty value
//   layers     one row per lazy snapshot: what headrace-fused needs to show it
//   leftovers  ids whose directory or mount may still exist although no snapshot has them: work for
//   Cleanup sequence   one row: ids below next_id were allotted at some time
// Names and label texts are blobs: bytes compared as bytes.
#ifndef HEADRACE_SNAPSHOTTER_STORE_SCHEMA_H_
#define HEADRACE_SNAPSHOTTER_STORE_SCHEMA_H_

#include <cstdint>

namespace headrace::snapshotter {

inline constexpr int64_t kSchemaVersion = 1;
inline constexpr int64_t kApplicationId = 0x4852736e;

inline constexpr char kSchema[] = R"sql(
CREATE TABLE snapshots (
  id         INTEGER PRIMARY KEY,
  name       BLOB NOT NULL UNIQUE,
  parent     INTEGER REFERENCES snapshots(id),
  kind       INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
  created_ns INTEGER NOT NULL,
  updated_ns INTEGER NOT NULL,
  size       INTEGER,
  inodes     INTEGER
);
CREATE INDEX snapshots_by_parent ON snapshots(parent);
CREATE TABLE labels (
  snapshot INTEGER NOT NULL REFERENCES snapshots(id) ON DELETE CASCADE,
  key      BLOB NOT NULL,
  value    BLOB NOT NULL,
  PRIMARY KEY (snapshot, key)
) WITHOUT ROWID;
CREATE INDEX labels_by_text ON labels(key, value);
CREATE TABLE layers (
  snapshot        INTEGER PRIMARY KEY REFERENCES snapshots(id) ON DELETE CASCADE,
  image_ref       BLOB NOT NULL,
  manifest_digest BLOB NOT NULL,
  blob_digest     BLOB NOT NULL,
  toc             BLOB NOT NULL,
  above_foreign   INTEGER NOT NULL CHECK (above_foreign IN (0, 1))
);
CREATE TABLE leftovers (
  id   INTEGER PRIMARY KEY,
  lazy INTEGER NOT NULL CHECK (lazy IN (0, 1))
);
CREATE TABLE sequence (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  next_id INTEGER NOT NULL
);
INSERT INTO sequence VALUES (1, 1);
)sql";

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_STORE_SCHEMA_H_
