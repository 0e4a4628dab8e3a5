// ParseTocJson: a streaming (SAX) reading of the table of contents. Memory: the LayerIndex, one entry, and the parser's nesting bits.
#include <algorithm>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "fusefs/base/text.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/toc.h"
#include "fusefs/format/toc_builder.h"

namespace headrace::format {
namespace {

enum class Field : uint8_t {
  kUnknown, kVersion, kEntries,  // of the document
  kType, kName, kNameRaw, kLinkName, kLinkNameRaw, kModTime, kDigest, kChunkDigest, kChunkType,  // texts
  kMode, kSize, kUid, kGid, kDevMajor, kDevMinor, kOffset, kEndOffset, kChunkSize, kChunkOffset, kInnerOffset,  // numbers
  kXattrs,
};

struct FieldName {
  std::string_view name;
  Field field;
};
constexpr FieldName kDocumentFields[] = {{"version", Field::kVersion}, {"entries", Field::kEntries}};
constexpr FieldName kEntryFields[] = {
    {"type", Field::kType}, {"name", Field::kName}, {"nameRaw", Field::kNameRaw},
    {"linkName", Field::kLinkName}, {"linkNameRaw", Field::kLinkNameRaw}, {"modtime", Field::kModTime},
    {"digest", Field::kDigest}, {"chunkDigest", Field::kChunkDigest}, {"chunkType", Field::kChunkType},
    {"mode", Field::kMode}, {"size", Field::kSize}, {"uid", Field::kUid}, {"gid", Field::kGid},
    {"devMajor", Field::kDevMajor}, {"devMinor", Field::kDevMinor}, {"offset", Field::kOffset},
    {"endOffset", Field::kEndOffset}, {"chunkSize", Field::kChunkSize},
    {"chunkOffset", Field::kChunkOffset}, {"innerOffset", Field::kInnerOffset}, {"xattrs", Field::kXattrs}};

class TocSax {
 public:
  using json = nlohmann::json;
  explicit TocSax(LayerIndexBuilder& builder) : builder_(builder) {}

  // What the parser calls; false stops it.
  bool null() { return Scalar([] { return OkStatus(); }); }  // as absent
  bool boolean(bool) { return Scalar([this] { return WrongType(); }); }
  bool number_integer(int64_t) {  // only negative ones come here
    return Scalar([this] { return WrongType(); });
  }
  bool number_unsigned(uint64_t value) { return Scalar([&] { return OnNumber(value); }); }
  bool number_float(double, const std::string&) { return Scalar([this] { return WrongType(); }); }
  bool string(std::string& value) { return Scalar([&] { return OnText(value); }); }
  bool binary(json::binary_t&) { return Scalar([this] { return WrongType(); }); }
  bool key(std::string& name) { return skip_ > 0 || Keep(OnKey(name)); }
  bool start_object(size_t) { return Open(true); }
  bool end_object() { return Close(); }
  bool start_array(size_t) { return Open(false); }
  bool end_array() { return Close(); }
  bool parse_error(size_t position, const std::string&, const json::exception&) {
    return Keep(InvalidArgumentError("not JSON at byte " + std::to_string(position)));
  }

  Status Finish() {
    HR_RETURN_IF_ERROR(status_);
    if (!version_seen_) return InvalidArgumentError("there is no version");
    return OkStatus();
  }
  const Status& status() const { return status_; }

 private:
  enum class Context { kStart, kDocument, kEntries, kEntry, kXattrs, kEnd };

  bool Keep(Status status) {
    if (status_.ok()) status_ = std::move(status);
    return status_.ok();
  }
  Status WrongType() const {
    if (context_ != Context::kEntries && context_ != Context::kStart && field_ == Field::kUnknown &&
        context_ != Context::kXattrs) {
      return OkStatus();
    }
    return InvalidArgumentError("entry " + std::to_string(builder_.count()) + ": value of a wrong type or negative");
  }
  template <typename F>
  bool Scalar(F&& on_value) {
    return skip_ > 0 || Keep(on_value());
  }

  bool Open(bool object) {
    if (skip_ > 0) {
      if (skip_ >= limits::kJsonDepthMax) return Keep(ResourceExhaustedError("JSON is nested too deeply"));
      ++skip_;
      return true;
    }
    if (context_ == Context::kStart && object) {
      context_ = Context::kDocument;
    } else if (context_ == Context::kDocument && field_ == Field::kEntries && !object) {
      context_ = Context::kEntries;
    } else if (context_ == Context::kEntries && object) {
      context_ = Context::kEntry;
      entry_ = TocEntry();
      seen_ = 0;
    } else if (context_ == Context::kEntry && field_ == Field::kXattrs && object) {
      context_ = Context::kXattrs;
    } else if ((context_ == Context::kDocument || context_ == Context::kEntry) && field_ == Field::kUnknown) {
      skip_ = 1;
    } else {
      return Keep(WrongType());
    }
    return true;
  }

  bool Close() {
    if (skip_ > 0) {
      --skip_;
      return true;
    }
    switch (context_) {
      case Context::kXattrs: context_ = Context::kEntry; break;
      case Context::kEntry:
        context_ = Context::kEntries;
        return Keep(builder_.Add(entry_));
      case Context::kEntries: context_ = Context::kDocument; break;
      default: context_ = Context::kEnd; break;
    }
    return true;
  }

  Status OnKey(std::string& name) {
    if (context_ == Context::kXattrs) {
      xattr_ = std::move(name);
      return OkStatus();
    }
    field_ = Field::kUnknown;
    const auto find = [&](const auto& table) {
      for (const FieldName& f : table) {
        if (f.name == name) field_ = f.field;
      }
    };
    context_ == Context::kDocument ? find(kDocumentFields) : find(kEntryFields);
    if (field_ == Field::kUnknown) return OkStatus();
    // Twice the same key: readers would differ in which one they take.
    uint32_t& seen = context_ == Context::kDocument ? seen_in_document_ : seen_;
    const uint32_t bit = uint32_t{1} << static_cast<unsigned>(field_);
    if ((seen & bit) != 0) return InvalidArgumentError("'" + name + "' is there twice");
    seen |= bit;
    return OkStatus();
  }

  Status OnText(std::string& value) {
    if (context_ == Context::kXattrs) {
      HR_ASSIGN_OR_RETURN(std::string raw, Base64Decode(value));
      if (entry_.xattrs.size() >= limits::kXattrListMax / 2) return ResourceExhaustedError("too many xattrs");
      entry_.xattrs.emplace_back(std::move(xattr_), std::move(raw));
      return OkStatus();
    }
    if (context_ != Context::kEntry) return WrongType();
    switch (field_) {
      case Field::kType: entry_.type = std::move(value); break;
      case Field::kName: entry_.name = std::move(value); break;
      case Field::kNameRaw: return Raw(value, entry_.name_raw);
      case Field::kLinkName: entry_.link_name = std::move(value); break;
      case Field::kLinkNameRaw: return Raw(value, entry_.link_name_raw);
      case Field::kModTime: entry_.modtime = std::move(value); break;
      case Field::kDigest: entry_.digest = std::move(value); break;
      case Field::kChunkDigest: entry_.chunk_digest = std::move(value); break;
      case Field::kChunkType: entry_.chunk_type = std::move(value); break;
      default: return WrongType();
    }
    return OkStatus();
  }

  static Status Raw(const std::string& base64, std::optional<std::string>& out) {
    HR_ASSIGN_OR_RETURN(out, Base64Decode(base64));
    return OkStatus();
  }

  Status OnNumber(uint64_t value) {
    if (context_ == Context::kDocument && field_ == Field::kVersion) {
      version_seen_ = true;
      return value == 1 ? OkStatus() : InvalidArgumentError("version " + std::to_string(value) + " is unknown");
    }
    if (context_ != Context::kEntry) return WrongType();
    switch (field_) {
      case Field::kMode: entry_.mode = value; break;
      case Field::kSize: entry_.size = value; break;
      case Field::kUid: entry_.uid = value; break;
      case Field::kGid: entry_.gid = value; break;
      case Field::kDevMajor: entry_.dev_major = value; break;
      case Field::kDevMinor: entry_.dev_minor = value; break;
      case Field::kOffset: entry_.offset = value; break;
      case Field::kEndOffset: entry_.end_offset = value; break;
      case Field::kChunkSize: entry_.chunk_size = value; break;
      case Field::kChunkOffset: entry_.chunk_offset = value; break;
      case Field::kInnerOffset: entry_.inner_offset = value; break;
      default: return WrongType();
    }
    return OkStatus();
  }

  LayerIndexBuilder& builder_;
  Context context_ = Context::kStart;
  int skip_ = 0;  // nesting inside a value that nobody asked for
  Field field_ = Field::kUnknown;
  uint32_t seen_ = 0;
  uint32_t seen_in_document_ = 0;
  bool version_seen_ = false;
  std::string xattr_;
  TocEntry entry_;
  Status status_;
};

}  // namespace

Result<LayerIndex> ParseTocJson(std::string_view json, uint64_t data_end, uint64_t blob_size, TocDialect dialect) {
  if (json.size() > limits::kTocSizeMax) {
    return ResourceExhaustedError("table of contents of " + HumanBytes(json.size()));
  }
  try {
    LayerIndexBuilder builder(data_end, blob_size, dialect);
    TocSax sax(builder);
    nlohmann::json::sax_parse(json.data(), json.data() + json.size(), &sax);
    HR_RETURN_IF_ERROR(sax.Finish().Annotate("table of contents"));
    auto index = builder.Finish();
    if (!index.ok()) return index.status().Annotate("table of contents");
    return index;
  } catch (const std::bad_alloc&) {
    return ResourceExhaustedError("no memory for the table of contents");
  } catch (const std::exception& e) {
    return InvalidArgumentError(std::string("table of contents: ") + e.what());
  }
}

}  // namespace headrace::format
