#include "stoa/base/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::thrown;

Config parse(std::string_view text) {
  return Config::from_text(text, "r.toml");
}

constexpr const char* kRecipe = R"(# a recipe
name = "small"
[train]
steps = 100
batch_size = 8
lr = 1e-3

[model]
sizes = [1, 2]
[model.moe]
experts = 4
)";

TEST(Config, ValuesAreNestedAndTyped) {
  const Config config = parse(kRecipe);
  EXPECT_EQ(config.values(),
            Json::parse(R"({"name": "small", "train": {"steps": 100, "batch_size": 8, "lr": 0.001},
                                            "model": {"sizes": [1, 2], "moe": {"experts": 4}}})"));
  EXPECT_TRUE(config.find("train.steps")->is_number_integer());
  EXPECT_TRUE(config.find("train.lr")->is_number_float());
}

TEST(Config, KeysKeepTheOrderOfTheDocument) {
  const Config config = parse("z = 1\nb = 2\na = 3\n[y]\n[c]\n");
  std::string keys;
  for (const auto& [key, value] : config.values().items()) keys += key;
  EXPECT_EQ(keys, "zbayc");
}

TEST(Config, AFloatWithoutFractionStaysAFloat) {
  EXPECT_TRUE(parse("a = 1.0").find("a")->is_number_float());
  EXPECT_TRUE(parse("a = 1").find("a")->is_number_integer());
}

TEST(Config, DatesAreReadAsText) {
  EXPECT_EQ(*parse("a = 2020-01-31").find("a"), "2020-01-31");
  EXPECT_EQ(*parse("a = 07:30:00").find("a"), "07:30:00");
}

TEST(Config, FindGivesNothingForWhatIsNotThere) {
  const Config config = parse(kRecipe);
  EXPECT_EQ(config.find("train.stesp"), nullptr);
  EXPECT_EQ(config.find("train.steps.more"), nullptr);
  EXPECT_EQ(config.find(""), nullptr);
}

TEST(Config, WhereNamesFileAndLineOfAKey) {
  const Config config = parse(kRecipe);
  EXPECT_EQ(config.where("name"), "r.toml:2");
  EXPECT_EQ(config.where("train"), "r.toml:3");
  EXPECT_EQ(config.where("train.batch_size"), "r.toml:5");
  EXPECT_EQ(config.where("model.moe.experts"), "r.toml:11");
  EXPECT_EQ(config.where("no.such.key"), "r.toml");
}

TEST(Config, FromFileNamesTheFileAsItWasGiven) {
  const test::TempDir dir;
  write_file_atomically(dir / "a.toml", kRecipe);
  EXPECT_EQ(Config::from_file(dir / "a.toml").where("train.steps"), (dir / "a.toml").string() + ":4");
  EXPECT_THROW(Config::from_file(dir / "none.toml"), IoError);
}

TEST(Config, AFileIsLaidOverItsBaseTableByTable) {
  const test::TempDir folder;
  write_file_atomically(folder / "base.toml", "a = 1\n[t]\nx = 1\ny = 2\n");
  write_file_atomically(folder / "own.toml", "base = \"base.toml\"\nb = 3\n[t]\ny = 4\n");
  const Config config = Config::from_file(folder / "own.toml");
  EXPECT_EQ(config.values(), Json::parse(R"({"a": 1, "t": {"x": 1, "y": 4}, "b": 3})"));
  EXPECT_EQ(config.where("t.y"), (folder / "own.toml").string() + ":4");
  EXPECT_EQ(config.where("t.x"), (folder / "base.toml").string() + ":3");
}

TEST(Config, ABaseThatIsMissingOrACircleIsRefused) {
  const test::TempDir folder;
  write_file_atomically(folder / "lost.toml", "base = \"gone.toml\"\n");
  EXPECT_NE(thrown<ConfigError>([&] {
              Config::from_file(folder / "lost.toml");
            }).find("gone.toml, which is not there"),
            std::string::npos);
  write_file_atomically(folder / "ring.toml", "base = \"ring.toml\"\n");
  EXPECT_NE(thrown<ConfigError>([&] { Config::from_file(folder / "ring.toml"); }).find("circle"),
            std::string::npos);
}

TEST(Config, TextThatIsNotTomlIsRefusedOnOneLineWithItsPlace) {
  const std::string message = thrown<ConfigError>([] { parse("a = 1\nb = = 2\n"); });
  EXPECT_TRUE(message.starts_with("r.toml:2:5: not valid TOML: ")) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

TEST(Config, AKeyGivenTwiceIsRefused) {
  EXPECT_TRUE(thrown<ConfigError>([] { parse("a = 1\na = 2\n"); }).starts_with("r.toml:2:"));
}

TEST(Config, WhatIsReadCanBeReadAgainWhenWritten) {
  const auto dotted = [](int depth) {
    std::string key = "a";
    for (int i = 1; i < depth; ++i) key += ".a";
    return "[[list]]\n" + key + " = 1\n";
  };
  const auto config = Config::from_text(dotted(50), "f.toml");
  EXPECT_EQ(Config::from_text(to_toml(config.values()), "g.toml").values(), config.values());
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { Config::from_text(dotted(300), "f.toml"); }),
                       "f.toml: line 2");
}

TEST(Config, DeepNestingIsRefusedInsteadOfOverflowingTheStack) {
  EXPECT_THROW(parse("a = " + std::string(100000, '[')), ConfigError);
}

TEST(Config, FromJsonNeedsAnObject) {
  const Config config = Config::from_json(Json{{"a", {{"b", 1}}}}, "state.json");
  EXPECT_EQ(config.where("a.b"), "state.json");
  EXPECT_EQ(thrown<ConfigError>([] { Config::from_json(Json::array(), "state.json"); }),
            "state.json: the document is of type array; an object is needed");
}

TEST(Config, SetReplacesAValueAndItsPlace) {
  Config config = parse(kRecipe);
  config.set("train.steps=5");
  EXPECT_EQ(*config.find("train.steps"), 5);
  EXPECT_EQ(config.where("train.steps"), "--set train.steps=5");
  EXPECT_EQ(config.where("train.batch_size"), "r.toml:5");
}

TEST(Config, SetReadsTheValueAsToml) {
  Config config = parse("");
  for (const char* assignment : {"a = 1e-3", "b=[1, 2]", "c=\"quoted\"", "d=true", "e=-inf"})
    config.set(assignment);
  EXPECT_EQ(config.values(), (Json{{"a", 1e-3},
                                   {"b", {1, 2}},
                                   {"c", "quoted"},
                                   {"d", true},
                                   {"e", -std::numeric_limits<double>::infinity()}}));
}

TEST(Config, SetTakesWhatIsNotTomlAsPlainText) {
  Config config = parse("");
  for (const char* assignment : {"a=/tmp/x y", "b=paper", "c=", "d=1\nx=2", "e=a=b"}) config.set(assignment);
  EXPECT_EQ(config.values(),
            (Json{{"a", "/tmp/x y"}, {"b", "paper"}, {"c", ""}, {"d", "1\nx=2"}, {"e", "a=b"}}));
}

TEST(Config, SetMakesTheTablesOnTheWay) {
  Config config = parse("");
  config.set("a.b.c=1");
  EXPECT_EQ(config.values(), Json::parse(R"({"a": {"b": {"c": 1}}})"));
  EXPECT_EQ(config.where("a.b"), "--set a.b.c=1");
}

TEST(Config, KeysInsideATableThatWasSetStandWhereItDoes) {
  Config config = parse(kRecipe);
  config.set("model.moe={experts = 8}");
  EXPECT_EQ(*config.find("model.moe.experts"), 8);
  EXPECT_EQ(config.where("model.moe.experts"), "--set model.moe={experts = 8}");
}

TEST(Config, SetRefusesWhatIsNoAssignment) {
  Config config = parse(kRecipe);
  EXPECT_EQ(thrown<ConfigError>([&] { config.set("train.steps"); }),
            "--set train.steps: a key, `=` and a value are needed, e.g. --set train.steps=100");
  EXPECT_EQ(thrown<ConfigError>([&] { config.set("train..steps=1"); }),
            "--set train..steps=1: `train..steps` has an empty part; write it like train.steps");
  EXPECT_EQ(thrown<ConfigError>([&] { config.set("train.steps.x=1"); }),
            "--set train.steps.x=1: `train.steps` is a value, not a table, so it has no key `x`");
}

TEST(Config, TomlIsWrittenScalarsFirstThenTables) {
  const Json values = Json::parse(
      R"({"t": {"x": 1, "u": {"y": "a"}}, "s": true, "only": {"inner": {"z": [1, 2]}}, "empty": {}})");
  EXPECT_EQ(to_toml(values), R"(s = true

[t]
x = 1

[t.u]
y = "a"

[only.inner]
z = [1, 2]

[empty]
)");
}

TEST(Config, WrittenTomlReadsBackToTheSameValues) {
  const Json values = {{"text", "quote \" backslash \\ line\nbell\a tab\t delete\x7f é"},
                       {"odd key.", 1},
                       {"list", {{{"a", 1}, {"b c", "x"}}, {{"a", 2}}}},
                       {"mixed", {1, 2.5, "x", {true, false}}},
                       {"nothing", Json::array()},
                       {"table", {{"deep", {{"er", {{"number", -7}}}}}, {"none", Json::object()}}}};
  const Config config = parse(to_toml(values));
  EXPECT_EQ(Json::parse(config.values().dump()), values) << to_toml(values);
}

TEST(Config, NumbersAreWrittenShortAndReadBackExactly) {
  EXPECT_EQ(to_toml_value(1.0), "1.0");
  EXPECT_EQ(to_toml_value(0.1), "0.1");
  EXPECT_EQ(to_toml_value(-0.0), "-0.0");
  EXPECT_EQ(to_toml_value(1), "1");
  for (const double x : {1e300, 1e-5, 1.0 / 3, 123456789012345680.0, 5e-324, 1e22}) {
    const Config config = parse("x = " + to_toml_value(x));
    ASSERT_TRUE(config.find("x")->is_number_float()) << to_toml_value(x);
    EXPECT_EQ(config.find("x")->get<double>(), x);
  }
  for (const std::int64_t x :
       {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()})
    EXPECT_EQ(parse("x = " + to_toml_value(x)).find("x")->get<std::int64_t>(), x);
}

TEST(Config, InfinityAndNotANumberReadBack) {
  EXPECT_EQ(to_toml_value(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(to_toml_value(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_TRUE(std::isnan(parse("x = " + to_toml_value(std::nan(""))).find("x")->get<double>()));
}

TEST(Config, WhatTomlCannotHoldIsRefused) {
  EXPECT_THROW(to_toml(Json{{"a", nullptr}}), ConfigError);
  EXPECT_THROW(to_toml(Json::array({1})), ConfigError);
}

}  // namespace
}  // namespace stoa
