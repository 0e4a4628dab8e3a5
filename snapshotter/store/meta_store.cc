#include "snapshotter/store/meta_store.h"

#include <time.h>

#include <utility>

#include "snapshotter/store/rows.h"
#include "snapshotter/store/schema.h"
#include "snapshotter/store/sqlite.h"

namespace headrace::snapshotter {
namespace {

using sqlite::Connection;
using sqlite::Statement;
using sqlite::Transaction;

// Ids are made durable in blocks, so that most allotments write nothing; a restart skips the rest
// of a block.
constexpr uint64_t kIdBlock = 64;
// Idle read connections that are kept; more are opened and closed under load.
constexpr size_t kIdleReadersMax = 8;

int64_t RealtimeNs() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Result<int64_t> QueryInt(Connection* connection, const char* sql) {
  Statement query = connection->Prepare(sql);
  HR_ASSIGN_OR_RETURN(bool row, query.Step());
  if (!row) return InternalError(std::string(sql) + ": no row");
  return query.Int(0);
}

Status SetUpSchema(Connection* connection, const std::string& path) {
  Transaction transaction(connection, Transaction::Mode::kWrite);
  HR_RETURN_IF_ERROR(transaction.status());
  HR_ASSIGN_OR_RETURN(int64_t version, QueryInt(connection, "PRAGMA user_version"));
  HR_ASSIGN_OR_RETURN(int64_t application, QueryInt(connection, "PRAGMA application_id"));
  HR_ASSIGN_OR_RETURN(int64_t tables, QueryInt(connection, "SELECT count(*) FROM sqlite_schema"));
  if (version == kSchemaVersion && application == kApplicationId) return {};
  if (version != 0 || application != 0 || tables != 0) {
    return FailedPreconditionError(
        path + ": not a database of this headrace-snapshotter (version " + std::to_string(version) +
        ", this program knows " + std::to_string(kSchemaVersion) +
        "); it is left as it is: use the program that wrote it, or another --root");
  }
  HR_RETURN_IF_ERROR(connection->Execute(kSchema));
  HR_RETURN_IF_ERROR(
      connection->Execute("PRAGMA user_version = " + std::to_string(kSchemaVersion)));
  HR_RETURN_IF_ERROR(
      connection->Execute("PRAGMA application_id = " + std::to_string(kApplicationId)));
  return transaction.Commit();
}

}  // namespace

Status ValidateName(const std::string& what, const std::string& name) {
  if (name.empty()) return InvalidArgumentError(what + " is empty");
  if (name.size() > kNameBytesMax) {
    return InvalidArgumentError(what + " has " + std::to_string(name.size()) + " bytes, at most " +
                                std::to_string(kNameBytesMax) + " are allowed");
  }
  return {};
}

Status ValidateLabels(const Labels& labels) {
  if (labels.size() > kLabelsMax) {
    return InvalidArgumentError(std::to_string(labels.size()) + " labels, at most " +
                                std::to_string(kLabelsMax) + " are allowed");
  }
  for (const auto& [key, value] : labels) {
    if (key.size() + value.size() > kLabelBytesMax) {
      return InvalidArgumentError("label " + key.substr(0, 64) + ": key and value have " +
                                  std::to_string(key.size() + value.size()) + " bytes, at most " +
                                  std::to_string(kLabelBytesMax) + " are allowed");
    }
  }
  return {};
}

// A read transaction on a connection from the pool.
class MetaStore::Reader {
 public:
  explicit Reader(MetaStore* store) : store_(store) {
    Result<std::unique_ptr<Connection>> connection = store->TakeReader();
    if (!connection.ok()) {
      status_ = connection.status();
      return;
    }
    connection_ = std::move(connection).value();
    transaction_.emplace(connection_.get(), Transaction::Mode::kRead);
    status_ = transaction_->status();
  }
  ~Reader() {
    transaction_.reset();
    if (connection_ != nullptr) store_->GiveReader(std::move(connection_));
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  Status status() const { return status_; }
  Connection* get() { return connection_.get(); }

 private:
  MetaStore* store_;
  std::unique_ptr<Connection> connection_;
  std::optional<Transaction> transaction_;
  Status status_;
};

MetaStore::MetaStore(Options options) : options_(std::move(options)) {
  if (!options_.now_ns) options_.now_ns = RealtimeNs;
}

MetaStore::~MetaStore() = default;

Result<std::unique_ptr<MetaStore>> MetaStore::Open(Options options) {
  std::unique_ptr<MetaStore> store(new MetaStore(std::move(options)));
  HR_RETURN_IF_ERROR(store->OpenWriter());
  return store;
}

Status MetaStore::OpenWriter() {
  MutexLock lock(writer_mu_);
  HR_ASSIGN_OR_RETURN(writer_, Connection::Open(options_.path, /*writer=*/true));
  HR_RETURN_IF_ERROR(writer_->Execute("PRAGMA journal_mode = WAL"));
  HR_RETURN_IF_ERROR(writer_->Execute("PRAGMA synchronous = FULL"));
  HR_RETURN_IF_ERROR(SetUpSchema(writer_.get(), options_.path));
  HR_ASSIGN_OR_RETURN(int64_t next, QueryInt(writer_.get(), "SELECT next_id FROM sequence"));
  next_id_ = id_limit_ = static_cast<uint64_t>(next);
  return {};
}

Result<std::unique_ptr<Connection>> MetaStore::TakeReader() {
  {
    MutexLock lock(readers_mu_);
    if (!readers_.empty()) {
      std::unique_ptr<Connection> connection = std::move(readers_.back());
      readers_.pop_back();
      return connection;
    }
  }
  return Connection::Open(options_.path, /*writer=*/false);
}

void MetaStore::GiveReader(std::unique_ptr<Connection> connection) {
  MutexLock lock(readers_mu_);
  if (readers_.size() < kIdleReadersMax) readers_.push_back(std::move(connection));
}

Result<uint64_t> MetaStore::AllotId() {
  MutexLock lock(writer_mu_);
  if (next_id_ == id_limit_) {
    Transaction transaction(writer_.get(), Transaction::Mode::kWrite);
    HR_RETURN_IF_ERROR(transaction.status());
    HR_RETURN_IF_ERROR(
        writer_->Prepare("UPDATE sequence SET next_id = ?").Bind(1, id_limit_ + kIdBlock).Run());
    HR_RETURN_IF_ERROR(transaction.Commit());
    id_limit_ += kIdBlock;
  }
  return next_id_++;
}

Result<Record> MetaStore::Get(const std::string& name) {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  return rows::Get(reader.get(), name);
}

Result<std::vector<Record>> MetaStore::Chain(const std::string& name) {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  return rows::Chain(reader.get(), name);
}

Result<std::vector<Info>> MetaStore::List() {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  HR_ASSIGN_OR_RETURN(std::vector<Record> records, rows::Select(reader.get(), rows::Which::kAll));
  std::vector<Info> infos;
  infos.reserve(records.size());
  for (Record& record : records) infos.push_back(std::move(record.info));
  return infos;
}

Result<std::optional<Record>> MetaStore::FindLazy(const std::string& ref,
                                                  const std::string& parent) {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  return rows::FindLazy(reader.get(), ref, parent);
}

Result<std::vector<Record>> MetaStore::LazySnapshots() {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  return rows::Select(reader.get(), rows::Which::kLazy);
}

Result<std::vector<Record>> MetaStore::Unmeasured() {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  return rows::Select(reader.get(), rows::Which::kUnmeasured);
}

Result<bool> MetaStore::HasId(uint64_t id) {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  return reader.get()->Prepare("SELECT 1 FROM snapshots WHERE id = ?").Bind(1, id).Step();
}

Result<Record> MetaStore::Create(const NewSnapshot& snapshot) {
  HR_RETURN_IF_ERROR(ValidateName("snapshot key", snapshot.name));
  HR_RETURN_IF_ERROR(ValidateLabels(snapshot.labels));
  if ((snapshot.kind == Kind::kCommitted) != snapshot.lazy.has_value()) {
    return InvalidArgumentError("snapshot " + snapshot.name +
                                ": only lazy snapshots are created committed");
  }
  MutexLock lock(writer_mu_);
  Connection* db = writer_.get();
  Transaction transaction(db, Transaction::Mode::kWrite);
  HR_RETURN_IF_ERROR(transaction.status());
  Record record;
  record.id = snapshot.id;
  int64_t now = options_.now_ns();
  record.info = {snapshot.name, snapshot.parent, snapshot.kind, now, now, snapshot.labels};
  record.lazy = snapshot.lazy;
  std::optional<uint64_t> parent_id;
  if (!snapshot.parent.empty()) {
    Result<Record> parent = rows::Get(db, snapshot.parent);
    if (!parent.ok()) return parent.status().Annotate("parent of " + snapshot.name);
    if (parent->info.kind != Kind::kCommitted) {
      return InvalidArgumentError("parent " + snapshot.parent + " of " + snapshot.name +
                                  " is not a committed snapshot");
    }
    parent_id = parent->id;
  }
  HR_ASSIGN_OR_RETURN(bool used, rows::Exists(db, snapshot.name));
  if (used) return AlreadyExistsError("snapshot " + snapshot.name + " exists");
  HR_RETURN_IF_ERROR(rows::Insert(db, &record, parent_id));
  HR_RETURN_IF_ERROR(db->Prepare("DELETE FROM leftovers WHERE id = ?").Bind(1, snapshot.id).Run());
  HR_RETURN_IF_ERROR(transaction.Commit());
  return record;
}

Result<Record> MetaStore::Commit(const std::string& name, const std::string& key,
                                 const Labels& labels, const std::string& parent) {
  HR_RETURN_IF_ERROR(ValidateName("snapshot name", name));
  HR_RETURN_IF_ERROR(ValidateLabels(labels));
  MutexLock lock(writer_mu_);
  Connection* db = writer_.get();
  Transaction transaction(db, Transaction::Mode::kWrite);
  HR_RETURN_IF_ERROR(transaction.status());
  HR_ASSIGN_OR_RETURN(bool used, rows::Exists(db, name));
  if (used) return AlreadyExistsError("committed snapshot " + name + " exists");
  HR_ASSIGN_OR_RETURN(Record record, rows::Get(db, key));
  if (record.info.kind != Kind::kActive) {
    return FailedPreconditionError("snapshot " + key + " is not active and cannot be committed");
  }
  if (!parent.empty() && parent != record.info.parent) {
    if (!record.info.parent.empty()) {
      return InvalidArgumentError("snapshot " + key + " has the parent " + record.info.parent +
                                  " and cannot be committed on " + parent);
    }
    Result<Record> base = rows::Get(db, parent);
    if (!base.ok()) return base.status().Annotate("new parent of " + key);
    if (base->info.kind != Kind::kCommitted) {
      return FailedPreconditionError("new parent " + parent + " of " + key +
                                     " is not a committed snapshot");
    }
    HR_RETURN_IF_ERROR(db->Prepare("UPDATE snapshots SET parent = ? WHERE id = ?")
                           .Bind(1, base->id)
                           .Bind(2, record.id)
                           .Run());
    record.info.parent = parent;
  }
  int64_t now = options_.now_ns();
  HR_RETURN_IF_ERROR(
      db->Prepare(
            "UPDATE snapshots SET name = ?, kind = 3, created_ns = ?, updated_ns = ? WHERE id = ?")
          .Bind(1, name)
          .Bind(2, now)
          .Bind(3, now)
          .Bind(4, record.id)
          .Run());
  record.info = {name, record.info.parent, Kind::kCommitted, now, now, labels};
  HR_RETURN_IF_ERROR(rows::ReplaceLabels(db, record.id, &record.info.labels));
  HR_RETURN_IF_ERROR(transaction.Commit());
  return record;
}

Status MetaStore::Remove(const std::string& name) {
  MutexLock lock(writer_mu_);
  Connection* db = writer_.get();
  Transaction transaction(db, Transaction::Mode::kWrite);
  HR_RETURN_IF_ERROR(transaction.status());
  HR_ASSIGN_OR_RETURN(Record record, rows::Get(db, name));
  {
    Statement child = db->Prepare("SELECT name FROM snapshots WHERE parent = ? LIMIT 1");
    HR_ASSIGN_OR_RETURN(bool has_child, child.Bind(1, record.id).Step());
    if (has_child) {
      return FailedPreconditionError("cannot remove snapshot " + name + ": it has children (" +
                                     child.Bytes(0) + ")");
    }
  }
  HR_RETURN_IF_ERROR(db->Prepare("INSERT OR REPLACE INTO leftovers (id, lazy) VALUES (?, ?)")
                         .Bind(1, record.id)
                         .Bind(2, int64_t{record.lazy ? 1 : 0})
                         .Run());
  HR_RETURN_IF_ERROR(db->Prepare("DELETE FROM snapshots WHERE id = ?").Bind(1, record.id).Run());
  return transaction.Commit();
}

Result<Info> MetaStore::Update(const std::string& name, const Labels& labels,
                               const std::vector<std::string>& mask) {
  constexpr std::string_view kPrefix = "labels.";
  HR_RETURN_IF_ERROR(ValidateLabels(labels));
  MutexLock lock(writer_mu_);
  Connection* db = writer_.get();
  Transaction transaction(db, Transaction::Mode::kWrite);
  HR_RETURN_IF_ERROR(transaction.status());
  HR_ASSIGN_OR_RETURN(Record record, rows::Get(db, name));
  Labels updated = mask.empty() ? labels : record.info.labels;
  for (const std::string& path : mask) {
    if (path == "labels") {
      updated = labels;
    } else if (path.starts_with(kPrefix)) {
      std::string key = path.substr(kPrefix.size());
      auto value = labels.find(key);
      updated[key] = value == labels.end() ? "" : value->second;  // empty: deleted when written
    } else {
      return InvalidArgumentError("snapshot " + name + ": field " + path +
                                  " cannot be updated, only labels can");
    }
  }
  HR_RETURN_IF_ERROR(ValidateLabels(updated));
  record.info.labels = std::move(updated);
  record.info.updated_ns = options_.now_ns();
  HR_RETURN_IF_ERROR(db->Prepare("UPDATE snapshots SET updated_ns = ? WHERE id = ?")
                         .Bind(1, record.info.updated_ns)
                         .Bind(2, record.id)
                         .Run());
  HR_RETURN_IF_ERROR(rows::ReplaceLabels(db, record.id, &record.info.labels));
  HR_RETURN_IF_ERROR(transaction.Commit());
  return record.info;
}

Status MetaStore::SetUsage(uint64_t id, Usage usage) {
  MutexLock lock(writer_mu_);
  return writer_->Prepare("UPDATE snapshots SET size = ?, inodes = ? WHERE id = ? AND kind = 3")
      .Bind(1, usage.size)
      .Bind(2, usage.inodes)
      .Bind(3, id)
      .Run();
}

Status MetaStore::AddLeftover(Leftover leftover) {
  MutexLock lock(writer_mu_);
  HR_RETURN_IF_ERROR(writer_->Execute("PRAGMA synchronous = NORMAL"));
  Status added = writer_->Prepare("INSERT OR REPLACE INTO leftovers (id, lazy) VALUES (?, ?)")
                     .Bind(1, leftover.id)
                     .Bind(2, int64_t{leftover.lazy ? 1 : 0})
                     .Run();
  Status restored = writer_->Execute("PRAGMA synchronous = FULL");
  return added.ok() ? restored : added;
}

Result<std::vector<MetaStore::Leftover>> MetaStore::Leftovers() {
  Reader reader(this);
  HR_RETURN_IF_ERROR(reader.status());
  Statement query = reader.get()->Prepare("SELECT id, lazy FROM leftovers ORDER BY id DESC");
  std::vector<Leftover> out;
  for (;;) {
    HR_ASSIGN_OR_RETURN(bool row, query.Step());
    if (!row) return out;
    out.push_back({static_cast<uint64_t>(query.Int(0)), query.Int(1) != 0});
  }
}

Status MetaStore::DropLeftover(uint64_t id) {
  MutexLock lock(writer_mu_);
  return writer_->Prepare("DELETE FROM leftovers WHERE id = ?").Bind(1, id).Run();
}

}  // namespace headrace::snapshotter
