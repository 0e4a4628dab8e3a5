// Tokens of the filter language (filter.h) and the unquoting of its strings. Internal to this
// folder and its tests.
#ifndef HEADRACE_SNAPSHOTTER_FILTER_SCANNER_H_
#define HEADRACE_SNAPSHOTTER_FILTER_SCANNER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"

namespace headrace::snapshotter {

enum class TokenKind { kEnd, kQuoted, kValue, kField, kSeparator, kOperator, kIllegal, kOther };

struct Token {
  TokenKind kind = TokenKind::kEnd;
  size_t position = 0;    // byte offset of its first character
  std::string_view text;  // part of the input; quotes included
};

// Whether the word after an operator is a value or the next field follows from what was scanned
// before: one pass, front to back.
class Scanner {
 public:
  explicit Scanner(std::string_view input) : input_(input) {}
  Token Scan();
  // The next character without consuming it: kEndOfInput and kIllegalCharacter are negative.
  int32_t Peek();
  size_t next_position() const { return next_; }
  const std::string& error() const { return error_; }

  static constexpr int32_t kEndOfInput = -1;
  static constexpr int32_t kIllegalCharacter = -2;

 private:
  int32_t Next();
  bool ScanQuoted(int32_t quote);
  int32_t ScanEscape(int32_t quote, bool* legal);
  int32_t ScanDigits(int32_t ch, int base, int count, bool* legal);
  template <typename Accept>
  void ScanWhile(Accept accept);
  Token Make(TokenKind kind, size_t begin) const {
    return {kind, begin, input_.substr(begin, next_ - begin)};
  }

  std::string_view input_;
  size_t position_ = 0;  // of the character that Next() gave last
  size_t next_ = 0;      // of the character after it
  bool value_ = false;   // an operator was just scanned
  std::string error_;
};

// The contents of a quoted token: Go's escapes; `text` begins and ends with the same quote
// character.
Result<std::string> Unquote(std::string_view text);

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_FILTER_SCANNER_H_
