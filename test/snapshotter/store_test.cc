// MetaStore: containerd's metastore cases in our words, each with its error class, and what is
// ours: durability, versions, leftovers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <thread>

#include "fusefs/base/file.h"
#include "snapshotter/store/meta_store.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::snapshotter {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class StoreTest : public testing::Test {
 protected:
  void SetUp() override { Reopen(); }

  void Reopen() {
    store_.reset();
    auto store = MetaStore::Open({.path = path_, .now_ns = [this] { return ++now_; }});
    ASSERT_OK(store);
    store_ = std::move(store).value();
  }

  uint64_t Id() {
    Result<uint64_t> id = store_->AllotId();
    EXPECT_OK(id);
    return id.ok() ? *id : 0;
  }
  Result<Record> Create(Kind kind, const std::string& name, const std::string& parent,
                        const Labels& labels = {}) {
    return store_->Create({Id(), kind, name, parent, labels, std::nullopt});
  }
  Result<Record> CreateLazy(const std::string& name, const std::string& parent,
                            const std::string& ref) {
    return store_->Create({Id(),
                           Kind::kCommitted,
                           name,
                           parent,
                           {{"containerd.io/snapshot.ref", ref}},
                           LazyLayer{"r/i:1", "sha256:m", "sha256:b", "v1,x", false}});
  }
  // A committed snapshot on `parent`.
  void Commit(const std::string& name, const std::string& parent, const Labels& labels = {}) {
    ASSERT_OK(Create(Kind::kActive, name + "-key", parent));
    ASSERT_OK(store_->Commit(name, name + "-key", labels, ""));
  }
  // c1 <- c2, actives a1 (on c2) and a2 (no parent), view v1 (on c1).
  void Populate() {
    Commit("c1", "", {{"k", "v"}});
    Commit("c2", "c1");
    ASSERT_OK(Create(Kind::kActive, "a1", "c2"));
    ASSERT_OK(Create(Kind::kActive, "a2", ""));
    ASSERT_OK(Create(Kind::kView, "v1", "c1"));
  }

  test::TempDir dir_;
  std::string path_ = dir_ / "metadata.db";
  std::atomic<int64_t> now_{1'700'000'000'123'456'789};
  std::unique_ptr<MetaStore> store_;
};

// Goal: what was created is given back, field by field.
TEST_F(StoreTest, GetInfo) {
  Populate();
  auto c1 = store_->Get("c1");
  ASSERT_OK(c1);
  EXPECT_EQ(c1->info.name, "c1");
  EXPECT_EQ(c1->info.parent, "");
  EXPECT_EQ(c1->info.kind, Kind::kCommitted);
  EXPECT_EQ(c1->info.labels, (Labels{{"k", "v"}}));
  EXPECT_EQ(c1->info.created_ns, c1->info.updated_ns);
  EXPECT_GT(c1->info.created_ns, 1'700'000'000'123'456'789);
  EXPECT_FALSE(c1->lazy.has_value());
  EXPECT_EQ(store_->Get("c2")->info.parent, "c1");
  EXPECT_EQ(store_->Get("a1")->info.kind, Kind::kActive);
  EXPECT_EQ(store_->Get("v1")->info.kind, Kind::kView);
}

TEST_F(StoreTest, GetInfoNotExist) {
  Populate();
  EXPECT_CODE(store_->Get("nobody"), StatusCode::kNotFound);
  EXPECT_CODE(store_->Get("a1 "), StatusCode::kNotFound);
}

TEST_F(StoreTest, GetInfoEmptyDatabase) { EXPECT_CODE(store_->Get("c1"), StatusCode::kNotFound); }

// Goal: everything is listed once, with the same contents as Get gives.
TEST_F(StoreTest, Walk) {
  EXPECT_THAT(store_->List().value(), IsEmpty());
  Populate();
  auto infos = store_->List();
  ASSERT_OK(infos);
  std::vector<std::string> names;
  for (const Info& info : *infos) {
    names.push_back(info.name);
    auto got = store_->Get(info.name);
    ASSERT_OK(got);
    EXPECT_EQ(got->info.parent, info.parent);
    EXPECT_EQ(got->info.kind, info.kind);
    EXPECT_EQ(got->info.labels, info.labels);
    EXPECT_EQ(got->info.created_ns, info.created_ns);
  }
  EXPECT_THAT(names, ElementsAre("c1", "c2", "a1", "a2", "v1"));
}

// Goal: the chain begins with the snapshot, then comes the immediate parent.
TEST_F(StoreTest, ParentIdsOrder) {
  Populate();
  auto chain = store_->Chain("a1");
  ASSERT_OK(chain);
  ASSERT_EQ(chain->size(), 3u);
  EXPECT_EQ((*chain)[0].info.name, "a1");
  EXPECT_EQ((*chain)[1].info.name, "c2");
  EXPECT_EQ((*chain)[2].info.name, "c1");
  EXPECT_EQ((*chain)[2].info.labels, (Labels{{"k", "v"}}));
  EXPECT_EQ(store_->Chain("a2")->size(), 1u);
  EXPECT_CODE(store_->Chain("nobody"), StatusCode::kNotFound);
}

TEST_F(StoreTest, LongChain) {
  std::string parent;
  for (int i = 0; i < 200; ++i) {
    std::string name = "layer" + std::to_string(i);
    Commit(name, parent);
    parent = name;
  }
  auto chain = store_->Chain(parent);
  ASSERT_OK(chain);
  ASSERT_EQ(chain->size(), 200u);
  for (size_t i = 0; i < 200; ++i)
    EXPECT_EQ((*chain)[i].info.name, "layer" + std::to_string(199 - i));
}

TEST_F(StoreTest, CreateActive) {
  auto record = Create(Kind::kActive, "a", "", {{"l", "1"}, {"empty", ""}});
  ASSERT_OK(record);
  EXPECT_EQ(record->info.labels, (Labels{{"l", "1"}}));
  EXPECT_EQ(store_->Get("a")->info.labels, (Labels{{"l", "1"}}));
  EXPECT_TRUE(store_->HasId(record->id).value());
}

TEST_F(StoreTest, CreateErrors) {
  Populate();
  for (Kind kind : {Kind::kActive, Kind::kView}) {
    EXPECT_CODE(Create(kind, "new", "nobody"), StatusCode::kNotFound);
    EXPECT_CODE(Create(kind, "new", "a1"), StatusCode::kInvalidArgument);
    EXPECT_CODE(Create(kind, "new", "v1"), StatusCode::kInvalidArgument);
    EXPECT_CODE(Create(kind, "a1", ""), StatusCode::kAlreadyExists);
    EXPECT_CODE(Create(kind, "v1", ""), StatusCode::kAlreadyExists);
    EXPECT_CODE(Create(kind, "c1", "c2"), StatusCode::kAlreadyExists);
    EXPECT_CODE(Create(kind, "", ""), StatusCode::kInvalidArgument);
  }
  EXPECT_CODE(Create(Kind::kCommitted, "new", ""), StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->List()->size(), 5u);
}

// Goal: Commit keeps the id, replaces labels and times, and takes the key away.
TEST_F(StoreTest, Commit) {
  auto active = Create(Kind::kActive, "key", "", {{"old", "1"}});
  ASSERT_OK(active);
  auto committed = store_->Commit("name", "key", {{"new", "2"}}, "");
  ASSERT_OK(committed);
  EXPECT_EQ(committed->id, active->id);
  EXPECT_CODE(store_->Get("key"), StatusCode::kNotFound);
  auto record = store_->Get("name");
  ASSERT_OK(record);
  EXPECT_EQ(record->info.kind, Kind::kCommitted);
  EXPECT_EQ(record->info.labels, (Labels{{"new", "2"}}));
  EXPECT_GT(record->info.created_ns, active->info.created_ns);
  EXPECT_EQ(record->info.created_ns, record->info.updated_ns);
}

TEST_F(StoreTest, CommitErrors) {
  Populate();
  EXPECT_CODE(store_->Commit("new", "nobody", {}, ""), StatusCode::kNotFound);
  EXPECT_CODE(store_->Commit("c1", "a1", {}, ""), StatusCode::kAlreadyExists);
  EXPECT_CODE(store_->Commit("a2", "a1", {}, ""), StatusCode::kAlreadyExists);
  EXPECT_CODE(store_->Commit("a1", "a1", {}, ""), StatusCode::kAlreadyExists);
  EXPECT_CODE(store_->Commit("new", "c1", {}, ""), StatusCode::kFailedPrecondition);
  EXPECT_CODE(store_->Commit("new", "v1", {}, ""), StatusCode::kFailedPrecondition);
  EXPECT_CODE(store_->Commit("", "a1", {}, ""), StatusCode::kInvalidArgument);
  // The name is asked for before the key, as containerd does.
  EXPECT_CODE(store_->Commit("c1", "nobody", {}, ""), StatusCode::kAlreadyExists);
  EXPECT_EQ(store_->Get("a1")->info.kind, Kind::kActive);
}

// Goal: containerd 2.2's Commit with parent: allowed once, for snapshots without one.
TEST_F(StoreTest, Rebase) {
  Populate();
  EXPECT_CODE(store_->Commit("new", "a2", {}, "nobody"), StatusCode::kNotFound);
  EXPECT_CODE(store_->Commit("new", "a2", {}, "a1"), StatusCode::kFailedPrecondition);
  EXPECT_CODE(store_->Commit("new", "a1", {}, "c1"), StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->Get("a2")->info.parent, "");
  ASSERT_OK(store_->Commit("same", "a1", {}, "c2"));
  EXPECT_EQ(store_->Get("same")->info.parent, "c2");
  ASSERT_OK(store_->Commit("based", "a2", {}, "same"));
  EXPECT_EQ(store_->Get("based")->info.parent, "same");
  EXPECT_EQ(store_->Chain("based")->size(), 4u);
  EXPECT_CODE(store_->Remove("same"), StatusCode::kFailedPrecondition);
}

TEST_F(StoreTest, Remove) {
  Populate();
  uint64_t id = store_->Get("a1")->id;
  ASSERT_OK(store_->Remove("a1"));
  EXPECT_CODE(store_->Get("a1"), StatusCode::kNotFound);
  EXPECT_FALSE(store_->HasId(id).value());
  EXPECT_CODE(store_->Remove("a1"), StatusCode::kNotFound);
  auto again = Create(Kind::kView, "a1", "c2");
  ASSERT_OK(again);
  EXPECT_NE(again->id, id);
}

TEST_F(StoreTest, RemoveWithChildren) {
  Populate();
  Status status = store_->Remove("c1");
  EXPECT_CODE(status, StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(),
              testing::HasSubstr("remove"));  // containerd's own suite looks for the word
  EXPECT_CODE(store_->Remove("c2"), StatusCode::kFailedPrecondition);
  ASSERT_OK(store_->Remove("a1"));
  ASSERT_OK(store_->Remove("c2"));
  EXPECT_CODE(store_->Remove("c1"), StatusCode::kFailedPrecondition);  // v1
  ASSERT_OK(store_->Remove("v1"));
  ASSERT_OK(store_->Remove("c1"));
}

TEST_F(StoreTest, Update) {
  ASSERT_OK(Create(Kind::kActive, "a", "", {{"l1", "1"}, {"l2", "2"}, {"l.3", "3"}}));
  int64_t created = store_->Get("a")->info.created_ns;
  auto masked = store_->Update("a", {{"l1", "new"}, {"l.3", "dots"}, {"l4", "ignored"}},
                               {"labels.l1", "labels.l2", "labels.l.3"});
  ASSERT_OK(masked);
  EXPECT_EQ(masked->labels, (Labels{{"l1", "new"}, {"l.3", "dots"}}));
  EXPECT_EQ(masked->created_ns, created);
  EXPECT_GT(masked->updated_ns, created);
  EXPECT_EQ(store_->Get("a")->info.labels, masked->labels);
  EXPECT_EQ(store_->Get("a")->info.updated_ns, masked->updated_ns);
  EXPECT_EQ(store_->Update("a", {{"x", "1"}, {"y", ""}}, {"labels"})->labels, (Labels{{"x", "1"}}));
  EXPECT_EQ(store_->Update("a", {}, {})->labels, Labels{});
  for (const char* field : {"parent", "name", "kind", "created_at", "label", "labels2", ""}) {
    EXPECT_CODE(store_->Update("a", {}, {field}), StatusCode::kInvalidArgument);
  }
  EXPECT_CODE(store_->Update("nobody", {}, {}), StatusCode::kNotFound);
  EXPECT_CODE(store_->Update("nobody", {}, {"parent"}), StatusCode::kNotFound);
}

// Goal: names are bytes: whatever is in them, they are found again and not mixed up.
TEST_F(StoreTest, OddNames) {
  std::vector<std::string> names = {"k8s.io/12/extract-1-a b sha256:1",
                                    "k8s.io/17//run/x",
                                    "..",
                                    "/",
                                    "a\nb",
                                    "'; DROP TABLE snapshots;--",
                                    "%",
                                    "\xff\xfe",
                                    std::string("nul\0inside", 10),
                                    "nul",
                                    "牛",
                                    std::string(kNameBytesMax, 'n')};
  for (const std::string& name : names)
    ASSERT_OK(Create(Kind::kActive, name, "", {{name.substr(0, 100), name.substr(0, 100)}}));
  Reopen();
  for (const std::string& name : names) {
    auto record = store_->Get(name);
    ASSERT_OK(record);
    EXPECT_EQ(record->info.name, name);
    EXPECT_EQ(record->info.labels, (Labels{{name.substr(0, 100), name.substr(0, 100)}}));
  }
  EXPECT_EQ(store_->List()->size(), names.size());
  EXPECT_CODE(Create(Kind::kActive, std::string(kNameBytesMax + 1, 'n'), ""),
              StatusCode::kInvalidArgument);
}

TEST_F(StoreTest, LabelLimits) {
  std::string key(100, 'k');
  EXPECT_OK(Create(Kind::kActive, "fits", "", {{key, std::string(kLabelBytesMax - 100, 'v')}}));
  EXPECT_CODE(Create(Kind::kActive, "no", "", {{key, std::string(kLabelBytesMax - 99, 'v')}}),
              StatusCode::kInvalidArgument);
  EXPECT_CODE(store_->Update("fits", {{key, std::string(kLabelBytesMax, 'v')}}, {}),
              StatusCode::kInvalidArgument);
  Labels many;
  for (size_t i = 0; i <= kLabelsMax; ++i) many[std::to_string(i)] = "x";
  EXPECT_CODE(store_->Commit("c", "fits", many, ""), StatusCode::kInvalidArgument);
}

// Goal: an id is given once, also across restarts, failures and removals.
TEST_F(StoreTest, IdsAreNeverReused) {
  std::set<uint64_t> seen;
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(seen.insert(Id()).second);
    EXPECT_CODE(Create(Kind::kActive, "x", "nobody"), StatusCode::kNotFound);
    Reopen();
  }
}

TEST_F(StoreTest, LazySnapshots) {
  Commit("base", "");
  auto lazy1 = CreateLazy("headrace/lazy/1/r1", "", "r1");
  ASSERT_OK(lazy1);
  ASSERT_OK(CreateLazy("headrace/lazy/2/r2", "headrace/lazy/1/r1", "r2"));
  ASSERT_OK(CreateLazy("headrace/lazy/3/r1", "base", "r1"));
  EXPECT_EQ(store_->FindLazy("r1", "").value()->info.name, "headrace/lazy/1/r1");
  EXPECT_EQ(store_->FindLazy("r1", "base").value()->info.name, "headrace/lazy/3/r1");
  EXPECT_FALSE(store_->FindLazy("r1", "headrace/lazy/1/r1").value().has_value());
  EXPECT_FALSE(store_->FindLazy("r", "").value().has_value());
  Commit("ordinary", "", {{"containerd.io/snapshot.ref", "r9"}});
  EXPECT_FALSE(store_->FindLazy("r9", "").value().has_value());
  Reopen();
  auto found = store_->Get("headrace/lazy/2/r2");
  ASSERT_OK(found);
  EXPECT_EQ(found->info.kind, Kind::kCommitted);
  EXPECT_EQ(found->lazy, (LazyLayer{"r/i:1", "sha256:m", "sha256:b", "v1,x", false}));
  auto all = store_->LazySnapshots();
  ASSERT_OK(all);
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ((*all)[0].id, lazy1->id);
}

// Goal: what a removed snapshot leaves is remembered until it is said to be gone; creating takes
// the note away in the same step.
TEST_F(StoreTest, Leftovers) {
  uint64_t pending = Id();
  ASSERT_OK(store_->AddLeftover({pending, true}));
  auto active = Create(Kind::kActive, "a", "");
  ASSERT_OK(store_->Remove("a"));
  Reopen();
  auto leftovers = store_->Leftovers();
  ASSERT_OK(leftovers);
  ASSERT_EQ(leftovers->size(), 2u);
  EXPECT_EQ((*leftovers)[0].id, active->id);  // later ids, children, first
  EXPECT_FALSE((*leftovers)[0].lazy);
  EXPECT_EQ((*leftovers)[1].id, pending);
  EXPECT_TRUE((*leftovers)[1].lazy);
  ASSERT_OK(store_->Create({pending, Kind::kCommitted, "lazy", "", {}, LazyLayer{}}));
  ASSERT_OK(store_->DropLeftover(active->id));
  EXPECT_THAT(store_->Leftovers().value(), IsEmpty());
}

TEST_F(StoreTest, UsageOnceMeasured) {
  Commit("c", "");
  auto active = Create(Kind::kActive, "a", "");
  uint64_t id = store_->Get("c")->id;
  ASSERT_EQ(store_->Unmeasured()->size(), 1u);
  ASSERT_OK(store_->SetUsage(id, {4096, 3}));
  ASSERT_OK(store_->SetUsage(active->id, {1, 1}));  // actives change: never stored
  ASSERT_OK(store_->SetUsage(99999, {1, 1}));
  EXPECT_EQ(store_->Get("c")->usage, (Usage{4096, 3}));
  EXPECT_FALSE(store_->Get("a")->usage.has_value());
  EXPECT_THAT(store_->Unmeasured().value(), IsEmpty());
}

TEST_F(StoreTest, EverythingSurvivesReopening) {
  Populate();
  auto before = store_->List();
  Reopen();
  auto after = store_->List();
  ASSERT_EQ(after->size(), before->size());
  for (size_t i = 0; i < after->size(); ++i) {
    EXPECT_EQ((*after)[i].name, (*before)[i].name);
    EXPECT_EQ((*after)[i].created_ns, (*before)[i].created_ns);
    EXPECT_EQ((*after)[i].labels, (*before)[i].labels);
  }
}

void Sql(const std::string& path, const char* sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);
}

// Goal: files of another version or of another program, and garbage, are refused and not touched.
TEST_F(StoreTest, UnknownVersionIsRefused) {
  Populate();
  store_.reset();
  Sql(path_, "PRAGMA user_version = 7");
  auto newer = MetaStore::Open({.path = path_});
  EXPECT_CODE(newer, StatusCode::kFailedPrecondition);
  EXPECT_THAT(newer.status().message(), testing::HasSubstr("version 7"));
  Sql(path_, "PRAGMA user_version = 1");
  Reopen();
  EXPECT_EQ(store_->List()->size(), 5u);

  std::string foreign = dir_ / "foreign.db";
  Sql(foreign, "CREATE TABLE theirs (x)");
  EXPECT_CODE(MetaStore::Open({.path = foreign}), StatusCode::kFailedPrecondition);
  std::string garbage = dir_ / "garbage.db";
  ASSERT_OK(WriteFileAtomic(garbage, std::string(8192, 'g')));
  EXPECT_CODE(MetaStore::Open({.path = garbage}), StatusCode::kDataLoss);
  EXPECT_FALSE(MetaStore::Open({.path = dir_ / "no/such/dir.db"}).ok());
}

// Goal: readers see whole transactions while writers work: a snapshot is there with both of its
// labels or not at all.
TEST_F(StoreTest, ReadersAndWritersAtOnce) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        auto infos = store_->List();
        EXPECT_OK(infos);
        if (!infos.ok()) return;
        for (const Info& info : *infos) EXPECT_EQ(info.labels.size(), 2u) << info.name;
      }
    });
  }
  std::vector<std::thread> writers;
  for (int w = 0; w < 2; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < 40; ++i) {
        std::string name = std::to_string(w) + "/" + std::to_string(i);
        EXPECT_OK(store_->Create(
            {Id(), Kind::kActive, name, "", {{"a", "1"}, {"b", "2"}}, std::nullopt}));
        EXPECT_OK(store_->Update(name, {{"c", "1"}, {"d", "2"}}, {}));
        if (i % 2 == 0) EXPECT_OK(store_->Remove(name));
      }
    });
  }
  for (auto& thread : writers) thread.join();
  stop = true;
  for (auto& thread : readers) thread.join();
  EXPECT_EQ(store_->List()->size(), 40u);
}

}  // namespace
}  // namespace headrace::snapshotter
