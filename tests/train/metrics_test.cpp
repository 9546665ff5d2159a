#include "stoa/train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

TEST(Metrics, KeepTheOrderInWhichTheyWereSet) {
  Metrics metrics = {{"loss", 0.5}};
  metrics.set("accuracy", 0.25);
  metrics.set("loss", 0.125);
  EXPECT_EQ(metrics.to_json().dump(), R"({"loss":0.125,"accuracy":0.25})");
}

TEST(Metrics, AMissingOneIsNamedWithTheNearest) {
  const Metrics metrics = {{"accuracy", 1.0}};
  EXPECT_FALSE(metrics.has("acuracy"));
  const auto message = test::thrown<Error>([&] { metrics["acuracy"]; });
  EXPECT_EQ(message, "there is no metric `acuracy`; did you mean `accuracy`?");
}

TEST(Metrics, ComeBackFromJsonToTheLastBit) {
  const Metrics metrics = {{"a", 0.1 + 0.2}, {"b", -1e-300}};
  EXPECT_EQ(Metrics::from_json(Json::parse(metrics.to_json().dump())).items(), metrics.items());
}

TEST(Metrics, ANumberThatIsNotFiniteStaysSo) {
  const Metrics metrics = {{"a", std::numeric_limits<double>::quiet_NaN()}};
  EXPECT_TRUE(std::isnan(Metrics::from_json(Json::parse(metrics.to_json().dump()))["a"]));
}

TEST(Metrics, TextHasFourDigits) {
  EXPECT_EQ((Metrics{{"accuracy", 0.87312}, {"loss", 0.41}}.text()), "accuracy 0.8731, loss 0.41");
}

}  // namespace
}  // namespace stoa
