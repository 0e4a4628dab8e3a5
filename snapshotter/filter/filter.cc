#include "snapshotter/filter/filter.h"

#include <re2/re2.h>

#include <algorithm>

#include "fusefs/base/log.h"
#include "snapshotter/filter/scanner.h"

namespace headrace::snapshotter {

enum class Operator { kPresent, kEqual, kNotEqual, kMatches };

struct Filter::Selector {
  std::vector<std::string> path;
  Operator op = Operator::kPresent;
  std::string value;
  std::unique_ptr<re2::RE2> pattern;  // of kMatches; never null there

  bool Match(const FieldLookup& field) const {
    std::optional<std::string> found = field(path);
    switch (op) {
      case Operator::kPresent:
        return found.has_value();
      case Operator::kEqual:
        return found && *found == value;
      case Operator::kNotEqual:
        return found.value_or("") != value;
      case Operator::kMatches:
        return pattern->ok() && re2::RE2::PartialMatch(found.value_or(""), *pattern);
    }
    return false;
  }
};

// Recursive descent without recursion: selectors := selector (',' selector)*, selector := fieldpath
// [operator value].
class FilterParser {
 public:
  explicit FilterParser(std::string_view input) : input_(input), scanner_(input) {}

  Result<Filter::Alternative> Parse() {
    Filter::Alternative out;
    for (;;) {
      HR_ASSIGN_OR_RETURN(auto selector, ParseSelector());
      out.selectors.push_back(std::move(selector));
      int32_t next = scanner_.Peek();
      if (next == Scanner::kEndOfInput) return out;
      if (next != ',') return Error(scanner_.next_position(), "unexpected input");
      scanner_.Scan();
    }
  }

 private:
  Result<std::shared_ptr<const Filter::Selector>> ParseSelector() {
    auto selector = std::make_shared<Filter::Selector>();
    HR_RETURN_IF_ERROR(ParseFieldPath(&selector->path));
    int32_t next = scanner_.Peek();
    if (next == ',' || next == Scanner::kEndOfInput) {
      return std::shared_ptr<const Filter::Selector>(std::move(selector));
    }
    HR_ASSIGN_OR_RETURN(selector->op, ParseOperator());
    HR_ASSIGN_OR_RETURN(selector->value, ParseValue(selector->op == Operator::kMatches));
    if (selector->op == Operator::kMatches) {
      re2::RE2::Options options;
      options.set_log_errors(false);
      options.set_max_mem(
          1 << 20);  // a hostile pattern may not grow beyond this; it then does not compile
      selector->pattern = std::make_unique<re2::RE2>(selector->value, options);
      if (!selector->pattern->ok()) {
        log::Warn("filter pattern does not compile and matches nothing error=\"{}\"",
                  selector->pattern->error());
      }
    }
    return std::shared_ptr<const Filter::Selector>(std::move(selector));
  }

  Status ParseFieldPath(std::vector<std::string>* path) {
    for (;;) {
      HR_ASSIGN_OR_RETURN(std::string field, ParseField());
      path->push_back(std::move(field));
      if (scanner_.Peek() != '.') return {};
      scanner_.Scan();
    }
  }

  Result<std::string> ParseField() {
    Token token = scanner_.Scan();
    if (token.kind == TokenKind::kField) return std::string(token.text);
    if (token.kind == TokenKind::kQuoted) return UnquoteToken(token, /*alternative_quotes=*/false);
    if (token.kind == TokenKind::kIllegal) return Error(token.position, scanner_.error());
    return Error(token.position, "expected field or quoted");
  }

  Result<Operator> ParseOperator() {
    Token token = scanner_.Scan();
    if (token.kind == TokenKind::kIllegal) return Error(token.position, scanner_.error());
    if (token.kind != TokenKind::kOperator)
      return Error(token.position, "expected an operator (\"==\"|\"!=\"|\"~=\")");
    if (token.text == "==") return Operator::kEqual;
    if (token.text == "!=") return Operator::kNotEqual;
    if (token.text == "~=") return Operator::kMatches;
    return Error(token.position, "unsupported operator \"" + std::string(token.text) + "\"");
  }

  Result<std::string> ParseValue(bool alternative_quotes) {
    Token token = scanner_.Scan();
    if (token.kind == TokenKind::kValue || token.kind == TokenKind::kField)
      return std::string(token.text);
    if (token.kind == TokenKind::kQuoted) return UnquoteToken(token, alternative_quotes);
    if (token.kind == TokenKind::kIllegal) return Error(token.position, scanner_.error());
    return Error(token.position, "expected value or quoted");
  }

  Result<std::string> UnquoteToken(const Token& token, bool alternative_quotes) {
    if (!alternative_quotes && token.text.front() != '"')
      return Error(token.position, "invalid quote encountered");
    Result<std::string> out = Unquote(token.text);
    if (!out.ok()) return Error(token.position, "unquoting failed: " + out.status().message());
    return out;
  }

  Status Error(size_t position, const std::string& what) const {
    std::string where = position < input_.size()
                            ? std::string(input_.substr(0, position)) + " >|" + input_[position] +
                                  "|< " + std::string(input_.substr(position + 1))
                            : std::string(input_);
    return InvalidArgumentError("filters: parse error: [" + where + "]: " + what);
  }

  std::string_view input_;
  Scanner scanner_;
};

Result<Filter> Filter::Parse(const std::vector<std::string>& filters) {
  if (filters.size() > kFiltersMax) {
    return InvalidArgumentError("filters: " + std::to_string(filters.size()) +
                                " filters, at most " + std::to_string(kFiltersMax) +
                                " are allowed");
  }
  Filter out;
  for (const std::string& text : filters) {
    if (text.size() > kFilterBytesMax) {
      return InvalidArgumentError("filters: a filter of " + std::to_string(text.size()) +
                                  " bytes, at most " + std::to_string(kFilterBytesMax) +
                                  " are allowed");
    }
    Alternative alternative;  // without selectors: matches everything
    if (!text.empty()) {
      HR_ASSIGN_OR_RETURN(alternative, FilterParser(text).Parse());
    }
    out.alternatives_.push_back(std::move(alternative));
  }
  return out;
}

bool Filter::Match(const FieldLookup& field) const {
  if (alternatives_.empty()) return true;
  return std::any_of(
      alternatives_.begin(), alternatives_.end(), [&](const Alternative& alternative) {
        return std::all_of(alternative.selectors.begin(), alternative.selectors.end(),
                           [&](const auto& selector) { return selector->Match(field); });
      });
}

}  // namespace headrace::snapshotter
