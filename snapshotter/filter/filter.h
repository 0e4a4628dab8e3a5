// containerd's filter language (Snapshots.List): `fieldpath[op value]`, comma = AND, several filter
// strings = OR.
//
//   name==foo,labels."containerd.io/snapshot.ref"==sha256:1234
//
// op is == (present and equal), != (absent counts as ""), ~= (Go's regular expressions, which are
// RE2's; an absent field is ""); no op = presence. Field components and values may be quoted like
// Go strings ("..."); after ~= also /.../ and |...|. As in containerd a pattern that does not
// compile matches nothing and is no error; every other mistake is InvalidArgument and says where.
// Values: immutable after Parse, Match may be called by many threads. Nothing blocks. Time is
// linear in the text matched. Source of the semantics: containerd pkg/filters; the table in
// test/snapshotter/filter_test.cc holds what it does case by case.
#ifndef HEADRACE_SNAPSHOTTER_FILTER_FILTER_H_
#define HEADRACE_SNAPSHOTTER_FILTER_FILTER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::snapshotter {

// Limits on what a client may send; containerd's own filters are a few hundred bytes.
inline constexpr size_t kFilterBytesMax = 64 * 1024;
inline constexpr size_t kFiltersMax = 256;

// The value of a field of the object under test, nothing if it has no such field.
using FieldLookup = std::function<std::optional<std::string>(const std::vector<std::string>& path)>;

class Filter {
 public:
  // No strings: matches everything. An empty string matches everything, too.
  static Result<Filter> Parse(const std::vector<std::string>& filters);
  bool Match(const FieldLookup& field) const;

 private:
  struct Selector;
  struct Alternative {
    std::vector<std::shared_ptr<const Selector>>
        selectors;  // all must match; shared: compiled patterns are not copyable
  };
  friend class FilterParser;
  std::vector<Alternative> alternatives_;  // any must match; none = everything
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_FILTER_FILTER_H_
