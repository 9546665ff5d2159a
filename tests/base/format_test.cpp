#include "stoa/base/format.h"

#include <gtest/gtest.h>

namespace stoa {
namespace {

TEST(Format, TakesNumbersTextAndTruthValues) {
  const std::string text = "text";
  const char array[] = "array";
  EXPECT_EQ(format("{} {} {} {} {}", text, array, "literal", std::string_view("view"), 'c'),
            "text array literal view c");
  EXPECT_EQ(format("{} {} {} {}", -5, std::uint8_t{7}, std::int64_t{-1} << 62, ~std::uint64_t{0}),
            "-5 7 -4611686018427387904 18446744073709551615");
  EXPECT_EQ(format("{} {} {}", true, 0.1F, 0.1), "true 0.1 0.1");
}

TEST(Format, KnowsWidthsPrecisionsAndNumberedFields) {
  EXPECT_EQ(format("{:>6}|{:<6}|{:06.2f}|{:04x}|{:.3g}", 12, "ab", 2.5, 255, 1e-9),
            "    12|ab    |002.50|00ff|1e-09");
  EXPECT_EQ(format("{:>{}}|{:.{}f}", "a", 4, 0.5, 3), "   a|0.500");
  EXPECT_EQ(format("{1} {0} {1}", 'a', 'b'), "b a b");
  EXPECT_EQ(format("{{{}}} {{}}", 1), "{1} {}");
}

constexpr bool fits(std::string_view text, std::initializer_list<FormatArgument::Kind> kinds) {
  try {
    check_format(text, std::span(kinds.begin(), kinds.size()));
    return true;
  } catch (const char*) {
    return false;
  }
}

TEST(Format, StringsThatDoNotFitTheirArgumentsAreFoundByTheCompiler) {
  using enum FormatArgument::Kind;
  EXPECT_TRUE(fits("{} {:.1f}", {kText, kDouble}));
  EXPECT_FALSE(fits("{}", {}));
  EXPECT_FALSE(fits("{1}", {kText}));
  EXPECT_FALSE(fits("{}", {kText, kText}));
  EXPECT_FALSE(fits("{:.1f}", {kSigned}));
  EXPECT_FALSE(fits("{:d}", {kDouble}));
  EXPECT_FALSE(fits("{:>{}}", {kText, kDouble}));
  EXPECT_FALSE(fits("{", {kText}));
  EXPECT_FALSE(fits("{:", {kText}));
  EXPECT_FALSE(fits("{:>{", {kText, kSigned}));
  EXPECT_FALSE(fits("}", {}));
}

}  // namespace
}  // namespace stoa
