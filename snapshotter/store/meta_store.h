// MetaStore: the snapshotter's metadata in one SQLite file (WAL, synchronous=FULL: what was
// answered survives a crash of the machine).
//
// Every method is one transaction: it happened wholly or not at all. Methods may be called by any
// thread; one writer at a time, readers do not wait for it. All block on the local disk, none on
// anything else. Error codes are those that containerd expects of a snapshotter (facts: containerd
// core/snapshots/storage), written at each method. The schema and its version are in schema.h; a
// file of an unknown version is refused and left as it is.
#ifndef HEADRACE_SNAPSHOTTER_STORE_META_STORE_H_
#define HEADRACE_SNAPSHOTTER_STORE_META_STORE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "snapshotter/store/info.h"

namespace headrace::snapshotter {

namespace sqlite {
class Connection;
}

// Limits on what is stored; names and labels of containerd are far below.
inline constexpr size_t kNameBytesMax = 4096;
inline constexpr size_t kLabelBytesMax = 4096;  // key and value together, containerd's own limit
inline constexpr size_t kLabelsMax = 1024;

class MetaStore {
 public:
  struct Options {
    std::string path;
    std::function<int64_t()> now_ns;  // unset: the realtime clock
  };
  static Result<std::unique_ptr<MetaStore>> Open(Options options);
  ~MetaStore();

  // An id that was never given before. Durable: also ids that were allotted and not used are not
  // given again.
  Result<uint64_t> AllotId();

  // NotFound.
  Result<Record> Get(const std::string& name);
  // The record and its ancestors, the immediate parent first. NotFound.
  Result<std::vector<Record>> Chain(const std::string& name);
  // Everything, as of one moment; in the order of ids.
  Result<std::vector<Info>> List();
  // A committed lazy snapshot with this containerd.io/snapshot.ref on top of this parent ("" =
  // none), if there is one.
  Result<std::optional<Record>> FindLazy(const std::string& ref, const std::string& parent);
  // All lazy snapshots, parents before children.
  Result<std::vector<Record>> LazySnapshots();
  // Committed ordinary snapshots whose usage was not measured yet.
  Result<std::vector<Record>> Unmeasured();
  Result<bool> HasId(uint64_t id);

  // A new snapshot with an id from AllotId: active, view, or (lazy set) committed at once. Its
  // leftover entry, if any, is dropped. Parent missing NotFound; parent not committed
  // InvalidArgument; name used AlreadyExists.
  struct NewSnapshot {
    uint64_t id = 0;
    Kind kind = Kind::kActive;
    std::string name;
    std::string parent;
    Labels labels;
    std::optional<LazyLayer> lazy;
  };
  Result<Record> Create(const NewSnapshot& snapshot);

  // Active snapshot `key` becomes committed snapshot `name`: same id, labels replaced, times reset.
  // `parent`: "" keeps the parent; an active snapshot without parent may get one. name used
  // AlreadyExists; key missing NotFound; key not active FailedPrecondition; another parent than it
  // has InvalidArgument; new parent missing NotFound, not committed FailedPrecondition.
  Result<Record> Commit(const std::string& name, const std::string& key, const Labels& labels,
                        const std::string& parent);

  // Forgets the name at once; what it leaves on disk or in headrace-fused becomes a leftover.
  // NotFound; has children FailedPrecondition.
  Status Remove(const std::string& name);

  // Empty mask: labels are replaced. Mask entries: "labels" or "labels.<key>"; anything else is
  // InvalidArgument. NotFound.
  Result<Info> Update(const std::string& name, const Labels& labels,
                      const std::vector<std::string>& mask);

  // A snapshot that is gone by now is no error.
  Status SetUsage(uint64_t id, Usage usage);

  // Leftovers: ids whose directory or mount may still be there although no snapshot has them.
  struct Leftover {
    uint64_t id = 0;
    bool lazy = false;
  };
  // Survives a crash of the process at once, one of the machine only with the next write (what it
  // speaks of, a mount, does not survive that either): every lazy Prepare waits for it.
  Status AddLeftover(Leftover leftover);
  // Children before parents.
  Result<std::vector<Leftover>> Leftovers();
  Status DropLeftover(uint64_t id);

 private:
  class Reader;
  explicit MetaStore(Options options);
  Status OpenWriter();
  Result<std::unique_ptr<sqlite::Connection>> TakeReader();
  void GiveReader(std::unique_ptr<sqlite::Connection> connection);

  Options options_;
  Mutex writer_mu_;  // held across the write transaction: it is what makes it one at a time
  std::unique_ptr<sqlite::Connection> writer_ HR_GUARDED_BY(writer_mu_);
  uint64_t next_id_ HR_GUARDED_BY(writer_mu_) = 0;
  uint64_t id_limit_ HR_GUARDED_BY(writer_mu_) = 0;  // ids below are allotted durably
  Mutex readers_mu_;
  std::vector<std::unique_ptr<sqlite::Connection>> readers_
      HR_GUARDED_BY(readers_mu_);  // idle ones
};

// InvalidArgument unless names are 1 to kNameBytesMax bytes, labels within the limits above.
Status ValidateName(const std::string& what, const std::string& name);
Status ValidateLabels(const Labels& labels);

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_STORE_META_STORE_H_
