#include "snapshotter/filter/scanner.h"

namespace headrace::snapshotter {
namespace {

bool IsQuote(int32_t ch) { return ch == '/' || ch == '|' || ch == '"'; }
bool IsSeparator(int32_t ch) { return ch == ',' || ch == '.'; }
bool IsOperator(int32_t ch) { return ch == '=' || ch == '!' || ch == '?' || ch == '~'; }
bool IsField(int32_t ch) {
  return ch == '_' || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
         (ch >= '0' && ch <= '9');
}
// Unicode's White_Space property.
bool IsSpace(int32_t ch) {
  return (ch >= '\t' && ch <= '\r') || ch == ' ' || ch == 0x85 || ch == 0xa0 || ch == 0x1680 ||
         (ch >= 0x2000 && ch <= 0x200a) || ch == 0x2028 || ch == 0x2029 || ch == 0x202f ||
         ch == 0x205f || ch == 0x3000;
}
// Everything printable; the few unassigned and format characters that Go's tables would refuse are
// let through.
bool IsValue(int32_t ch) {
  return ch >= 0x20 && ch != 0x7f && !(ch >= 0x80 && ch < 0xa0) && ch != ',' && !IsSpace(ch);
}

int DigitValue(int32_t ch) {
  if (ch >= '0' && ch <= '9') return ch - '0';
  if (ch >= 'a' && ch <= 'f') return ch - 'a' + 10;
  if (ch >= 'A' && ch <= 'F') return ch - 'A' + 10;
  return 16;
}

// One UTF-8 character of `text` at `offset`: its length, or 0 if it is not valid (overlong forms
// and surrogates are not).
size_t DecodeUtf8(std::string_view text, size_t offset, int32_t* out) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[offset + i]); };
  size_t left = text.size() - offset;
  uint8_t first = byte(0);
  if (first < 0x80) {
    *out = first;
    return 1;
  }
  size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || left < length) return 0;
  int32_t ch = first & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    ch = (ch << 6) | (byte(i) & 0x3f);
  }
  bool overlong = (length == 3 && ch < 0x800) || (length == 4 && ch < 0x10000);
  if (overlong || ch > 0x10ffff || (ch >= 0xd800 && ch < 0xe000)) return 0;
  *out = ch;
  return length;
}

void AppendUtf8(uint32_t ch, std::string* out) {
  auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (ch >= 0xd800 && ch < 0xe000) ch = 0xfffd;
  if (ch < 0x80) {
    put(ch);
  } else if (ch < 0x800) {
    put(0xc0 | (ch >> 6));
    put(0x80 | (ch & 0x3f));
  } else if (ch < 0x10000) {
    put(0xe0 | (ch >> 12));
    put(0x80 | ((ch >> 6) & 0x3f));
    put(0x80 | (ch & 0x3f));
  } else {
    put(0xf0 | (ch >> 18));
    put(0x80 | ((ch >> 12) & 0x3f));
    put(0x80 | ((ch >> 6) & 0x3f));
    put(0x80 | (ch & 0x3f));
  }
}

}  // namespace

int32_t Scanner::Next() {
  position_ = next_;
  if (next_ >= input_.size()) return kEndOfInput;
  int32_t ch = 0;
  size_t length = DecodeUtf8(input_, next_, &ch);
  if (length == 0) {
    ++next_;
    error_ = "rune error";
    return kIllegalCharacter;
  }
  next_ += length;
  if (ch == 0) {
    error_ = "unexpected null";
    return kIllegalCharacter;
  }
  return ch;
}

int32_t Scanner::Peek() {
  size_t position = position_;
  size_t next = next_;
  int32_t ch = Next();
  position_ = position;
  next_ = next;
  return ch;
}

template <typename Accept>
void Scanner::ScanWhile(Accept accept) {
  while (accept(Peek())) Next();
}

Token Scanner::Scan() {
  int32_t ch = Next();
  while (IsSpace(ch)) ch = Next();
  size_t begin = position_;
  if (ch == kEndOfInput) return {TokenKind::kEnd, begin, {}};
  if (ch == kIllegalCharacter) return {TokenKind::kIllegal, begin, {}};
  if (IsQuote(ch)) return Make(ScanQuoted(ch) ? TokenKind::kQuoted : TokenKind::kIllegal, begin);
  if (IsSeparator(ch)) {
    value_ = false;
    return Make(TokenKind::kSeparator, begin);
  }
  if (IsOperator(ch)) {
    ScanWhile([](int32_t c) { return c == '=' || c == '!' || c == '~'; });
    value_ = true;
    return Make(TokenKind::kOperator, begin);
  }
  if (value_) {
    ScanWhile(IsValue);
    value_ = false;
    return Make(TokenKind::kValue, begin);
  }
  if (IsField(ch)) {
    ScanWhile(IsField);
    return Make(TokenKind::kField, begin);
  }
  return {TokenKind::kOther, begin, {}};
}

bool Scanner::ScanQuoted(int32_t quote) {
  bool all_legal = true;
  int32_t ch = Next();
  while (ch != quote) {
    if (ch == '\n' || ch < 0) {
      error_ = "quoted literal not terminated";
      return false;
    }
    if (ch == '\\') {
      bool legal = true;
      ch = ScanEscape(quote, &legal);
      all_legal = all_legal && legal;
    } else {
      ch = Next();
    }
  }
  return all_legal;
}

int32_t Scanner::ScanEscape(int32_t quote, bool* legal) {
  int32_t ch = Next();
  if (ch == quote) return Next();
  switch (ch) {
    case 'a':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
    case 'v':
    case '\\':
      return Next();
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
      return ScanDigits(ch, 8, 3, legal);
    case 'x':
      return ScanDigits(Next(), 16, 2, legal);
    case 'u':
      return ScanDigits(Next(), 16, 4, legal);
    case 'U':
      return ScanDigits(Next(), 16, 8, legal);
    default:
      error_ = "illegal escape sequence";
      *legal = false;
      return ch;
  }
}

int32_t Scanner::ScanDigits(int32_t ch, int base, int count, bool* legal) {
  while (count > 0 && DigitValue(ch) < base) {
    ch = Next();
    --count;
  }
  if (count > 0) {
    error_ = "illegal numeric escape sequence";
    *legal = false;
  }
  return ch;
}

namespace {

// Digits of a numeric escape at the front of `text`, which is shortened by them.
Result<uint32_t> TakeDigits(std::string_view* text, int base, size_t count) {
  if (text->size() < count) return InvalidArgumentError("invalid syntax");
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) {
    int digit = DigitValue(static_cast<unsigned char>((*text)[i]));
    if (digit >= base) return InvalidArgumentError("invalid syntax");
    value = value * static_cast<uint32_t>(base) + static_cast<uint32_t>(digit);
  }
  text->remove_prefix(count);
  return value;
}

// The escape whose backslash was just taken off `text`.
Status UnquoteEscape(std::string_view* text, char quote, std::string* out) {
  if (text->empty()) return InvalidArgumentError("invalid syntax");
  char ch = text->front();
  if (ch >= '0' && ch <= '7') {
    HR_ASSIGN_OR_RETURN(uint32_t byte, TakeDigits(text, 8, 3));
    if (byte > 255) return InvalidArgumentError("octal escape above \\377");
    out->push_back(static_cast<char>(byte));
    return {};
  }
  text->remove_prefix(1);
  switch (ch) {
    case 'a':
      out->push_back('\a');
      return {};
    case 'b':
      out->push_back('\b');
      return {};
    case 'f':
      out->push_back('\f');
      return {};
    case 'n':
      out->push_back('\n');
      return {};
    case 'r':
      out->push_back('\r');
      return {};
    case 't':
      out->push_back('\t');
      return {};
    case 'v':
      out->push_back('\v');
      return {};
    case '\\':
      out->push_back('\\');
      return {};
    case 'x': {
      HR_ASSIGN_OR_RETURN(uint32_t byte, TakeDigits(text, 16, 2));
      out->push_back(static_cast<char>(byte));
      return {};
    }
    case 'u':
    case 'U': {
      HR_ASSIGN_OR_RETURN(uint32_t rune, TakeDigits(text, 16, ch == 'u' ? 4 : 8));
      if (rune > 0x10ffff) return InvalidArgumentError("escape above \\U0010FFFF");
      AppendUtf8(rune, out);
      return {};
    }
    default:
      if (ch != quote) return InvalidArgumentError("invalid syntax");
      out->push_back(ch);
      return {};
  }
}

}  // namespace

Result<std::string> Unquote(std::string_view text) {
  if (text.size() < 2 || text.front() != text.back()) return InvalidArgumentError("invalid syntax");
  char quote = text.front();
  text = text.substr(1, text.size() - 2);
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    char ch = text.front();
    text.remove_prefix(1);
    if (ch == quote || ch == '\n') return InvalidArgumentError("invalid syntax");
    if (ch != '\\') {
      out.push_back(ch);
      continue;
    }
    HR_RETURN_IF_ERROR(UnquoteEscape(&text, quote, &out));
  }
  return out;
}

}  // namespace headrace::snapshotter
