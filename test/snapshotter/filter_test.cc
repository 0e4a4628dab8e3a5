// The filter language, case by case: what matches, what is refused and with which words and
// position.
#include "snapshotter/filter/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "snapshotter/filter/scanner.h"
#include "test/support/matchers.h"

namespace headrace::snapshotter {
namespace {

struct Thing {
  std::string name;
  std::string other;
  std::map<std::string, std::string> labels;
};

std::optional<std::string> FieldOf(const Thing& thing, const std::vector<std::string>& path) {
  if (path[0] == "name") return thing.name;
  if (path[0] == "other" && !thing.other.empty()) return thing.other;
  if (path[0] != "labels") return std::nullopt;
  std::string key;
  for (size_t i = 1; i < path.size(); ++i) key += (i > 1 ? "." : "") + path[i];
  auto found = thing.labels.find(key);
  if (found == thing.labels.end()) return std::nullopt;
  return found->second;
}

const std::vector<Thing>& Things() {
  static const std::vector<Thing> things = {
      {"ant", "", {{"legs", "six"}}},                               // 0
      {"bee", "", {}},                                              // 1
      {"ant", "", {{"legs", "many"}, {"has wings", "no"}}},         // 2
      {"bee", "", {{"sting", "six"}}},                              // 3
      {"cat", "", {{"back\\slash and \"quote\"", "x"}}},            // 4
      {"cat", "", {{"back\\slash and \"quote\".tail", "x"}}},       // 5
      {"dog", "big, and loud", {}},                                 // 6
      {"eel", "abc", {{"legs", "none_at.all-really"}}},             // 7
      {"牛", "moo", {{"containerd.io/snapshot.ref", "sha256:1"}}},  // 8
  };
  return things;
}

std::vector<int> Matches(const std::vector<std::string>& filters) {
  Result<Filter> filter = Filter::Parse(filters);
  EXPECT_OK(filter);
  std::vector<int> out;
  if (!filter.ok()) return out;
  for (size_t i = 0; i < Things().size(); ++i) {
    if (filter->Match([&](const auto& path) { return FieldOf(Things()[i], path); }))
      out.push_back(static_cast<int>(i));
  }
  return out;
}

using Indices = std::vector<int>;
const Indices kAll = {0, 1, 2, 3, 4, 5, 6, 7, 8};

struct MatchCase {
  const char* filter;
  Indices expected;
};

// Goal: every operator and every way to write fields and values selects what containerd selects.
TEST(FilterTest, SelectsLikeContainerd) {
  const std::vector<MatchCase> cases = {
      {"", kAll},
      {"name", kAll},
      {"nosuchfield", {}},
      {"labels.legs", {0, 2, 7}},
      {"labels.legs,name", {0, 2, 7}},
      {"labels.legs==six", {0}},
      {"labels.legs==none_at.all-really", {7}},
      {"name==bee", {1, 3}},
      {"name == bee", {1, 3}},
      {"  name==bee", {1, 3}},
      {"name!=bee", {0, 2, 4, 5, 6, 7, 8}},
      {"labels.legs!=six", {1, 2, 3, 4, 5, 6, 7, 8}},  // absent counts as ""
      {"labels.nothere!=\"\"", {}},
      {"labels.nothere==\"\"", {}},  // but absent is not equal to ""
      {"name==bee,labels.sting", {3}},
      {"name==bee,labels.sting==six", {3}},
      {"name==bee,labels.sting==wrong", {}},
      {"other==\"big, and loud\"", {6}},
      {"other~=[abc]+,name!=bee", {6, 7}},
      {"other~=/[abc]{1,2}/", {6, 7}},
      {"other~=|[abc]{1,2}|", {6, 7}},
      {"other~=/^abc$/", {7}},
      {"other~=/a\\/\"/", {}},
      {"other~=\"^b.g\"", {6}},
      {"name~=牛", {8}},
      {"name==\"\\u725b\"", {8}},
      {"name==\"\\xe7\\x89\\x9b\"", {8}},
      {"name==\"\\101nt\"", {}},
      {"name==\"\\141nt\"", {0, 2}},
      {"name==ant,labels.\"has wings\"", {2}},
      {"labels.\"back\\\\slash and \\\"quote\\\"\"==x", {4}},
      {"labels.\"back\\\\slash and \\\"quote\\\"\".tail==x", {5}},
      {"labels.\"containerd.io/snapshot.ref\"==\"sha256:1\"", {8}},
      {"labels.\"containerd.io/snapshot.ref\"==sha256:1", {8}},
      {"\"name\"==bee", {1, 3}},
      {"other~=(unclosed", {}},    // a pattern that does not compile matches nothing
      {"other~=/a{1,2000}/", {}},  // so does one beyond the limits of the engine
  };
  for (const MatchCase& c : cases) {
    EXPECT_EQ(Matches({c.filter}), c.expected) << c.filter;
  }
}

// Goal: several filters are alternatives; one empty alternative, or none at all, lets everything
// through.
TEST(FilterTest, SeveralFiltersAreAlternatives) {
  EXPECT_EQ(Matches({}), kAll);
  EXPECT_EQ(Matches({"name==bee", "name==cat"}), (Indices{1, 3, 4, 5}));
  EXPECT_EQ(Matches({"name==bee,labels.sting", "other"}), (Indices{3, 6, 7, 8}));
  EXPECT_EQ(Matches({"name==nobody", ""}), kAll);
}

struct ErrorCase {
  const char* filter;
  const char* message;  // part of it
};

// Goal: mistakes are InvalidArgument, the message points at the character.
TEST(FilterTest, MistakesSayWhere) {
  const std::vector<ErrorCase> cases = {
      {"labels.|legs|==six", "[labels. >|||< legs|==six]: invalid quote encountered"},
      {"labels./legs/==six", "[labels. >|/|< legs/==six]: invalid quote encountered"},
      {"labels.?\"a\"==x", "[labels. >|?|< \"a\"==x]: expected field or quoted"},
      {"name==ant,", "[name==ant,]: expected field or quoted"},
      {"labels.", "[labels.]: expected field or quoted"},
      {",", "[ >|,|< ]: expected field or quoted"},
      {"name~=,id?=?x", "[name~= >|,|< id?=?x]: expected value or quoted"},
      {"name~=", "[name~=]: expected value or quoted"},
      {"name==", "expected value or quoted"},
      {"labels.ns/key==value", "[labels.ns >|/|< key==value]: quoted literal not terminated"},
      {"labels.key==/value", "[labels.key== >|/|< value]: quoted literal not terminated"},
      {"name==/ant/", "[name== >|/|< ant/]: invalid quote encountered"},
      {"name==\"ant", "quoted literal not terminated"},
      {"name==\"a\nb\"", "quoted literal not terminated"},
      {"name==\"\\g\"", "illegal escape sequence"},
      {"name==\"\\xaz\"", "illegal numeric escape sequence"},
      {"name==\"\\777\"", "unquoting failed"},
      {"name==\"\\U00110000\"", "unquoting failed"},
      {"name=ant", "unsupported operator \"=\""},
      {"name===ant", "unsupported operator \"===\""},
      {"name ant", "expected an operator"},
      {"name==ant bee", "[name==ant >| |< bee]: unexpected input"},
      {"name==ant ", "unexpected input"},
      {"'name'==ant", "expected field or quoted"},
      {"na\xff", "rune error"},
      {"\xff", "rune error"},
  };
  for (const ErrorCase& c : cases) {
    Result<Filter> filter = Filter::Parse({c.filter});
    EXPECT_EQ(filter.status().code(), StatusCode::kInvalidArgument) << c.filter;
    EXPECT_THAT(filter.status().message(), testing::HasSubstr(c.message)) << c.filter;
  }
  // A NUL cannot be part of the table above.
  EXPECT_CODE(Filter::Parse({std::string("name\0==x", 8)}), StatusCode::kInvalidArgument);
}

// Goal: what a client can send is bounded in size and in the work that it causes.
TEST(FilterTest, IsBounded) {
  EXPECT_CODE(Filter::Parse({std::string(kFilterBytesMax + 1, 'a')}), StatusCode::kInvalidArgument);
  EXPECT_CODE(Filter::Parse(std::vector<std::string>(kFiltersMax + 1, "name")),
              StatusCode::kInvalidArgument);
  // A backtracking engine needs 2^60 steps for these.
  std::string hostile = "name~=\"^(a+)+$\"";
  Result<Filter> filter = Filter::Parse({hostile});
  ASSERT_OK(filter);
  std::string text = std::string(60, 'a') + "b";
  EXPECT_FALSE(filter->Match([&](const auto&) { return std::optional<std::string>(text); }));
}

// Goal: the tokens and their positions, where the parser above does not show them.
TEST(ScannerTest, TokensAndPositions) {
  struct Expected {
    TokenKind kind;
    size_t position;
    std::string text;
  };
  auto scan = [](const std::string& input) {
    Scanner scanner(input);
    std::vector<Token> out;
    for (;;) {
      Token token = scanner.Scan();
      if (token.kind == TokenKind::kEnd) {
        EXPECT_EQ(scanner.Scan().kind, TokenKind::kEnd);
        return out;
      }
      out.push_back(token);
    }
  };
  auto check = [&](const std::string& input, const std::vector<Expected>& expected) {
    std::vector<Token> tokens = scan(input);
    ASSERT_EQ(tokens.size(), expected.size()) << input;
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(tokens[i].kind, expected[i].kind) << input << " token " << i;
      EXPECT_EQ(tokens[i].position, expected[i].position) << input << " token " << i;
      EXPECT_EQ(tokens[i].text, expected[i].text) << input << " token " << i;
    }
  };
  using K = TokenKind;
  check("a.b==c.d-e,f", {{K::kField, 0, "a"},
                         {K::kSeparator, 1, "."},
                         {K::kField, 2, "b"},
                         {K::kOperator, 3, "=="},
                         {K::kValue, 5, "c.d-e"},
                         {K::kSeparator, 10, ","},
                         {K::kField, 11, "f"}});
  check("a = b   ", {{K::kField, 0, "a"}, {K::kOperator, 2, "="}, {K::kValue, 4, "b"}});
  check("a=b c",
        {{K::kField, 0, "a"}, {K::kOperator, 1, "="}, {K::kValue, 2, "b"}, {K::kField, 4, "c"}});
  check("a~=|牛|,b", {{K::kField, 0, "a"},
                      {K::kOperator, 1, "~="},
                      {K::kQuoted, 3, "|牛|"},
                      {K::kSeparator, 8, ","},
                      {K::kField, 9, "b"}});
  check(std::string("a\0b", 3), {{K::kField, 0, "a"}, {K::kIllegal, 1, ""}, {K::kField, 2, "b"}});
  check(
      "a==,b",
      {{K::kField, 0, "a"}, {K::kOperator, 1, "=="}, {K::kSeparator, 3, ","}, {K::kField, 4, "b"}});
}

}  // namespace
}  // namespace headrace::snapshotter
