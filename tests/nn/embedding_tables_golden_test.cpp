// Six steps of the original program's tables (tests/golden/README.md): its recorded gradients give its
// clipped gradients, weights and moments.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "stoa/base/format.h"
#include "stoa/nn/embedding_tables.h"
#include "stoa/tensor/safetensors.h"

namespace stoa::nn {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

constexpr std::int64_t kFields = 4, kWidth = 11;
constexpr int kSteps = 6;

const Tensors& golden() {
  static const Tensors tensors =
      load_safetensors(std::string(STOA_SOURCE_DIR) + "/tests/golden/cowclip_deepfm.safetensors").tensors;
  return tensors;
}

/// W.J and L.J beside one another: [size, 11].
at::Tensor both(const std::string& prefix, std::int64_t field) {
  return at::cat({golden().at(format("{}W.{}", prefix, field)), golden().at(format("{}L.{}", prefix, field))},
                 1);
}

struct Case {
  const char* name;
  double ratio, floor, l2, lr;
  RowClip clip;
};

EmbeddingOptions options_of(const Case& c, AbsentRows absent) {
  EmbeddingOptions options;
  options.lr = c.lr;
  options.l2 = c.l2;
  options.clip = c.clip;
  options.clip_ratio = c.ratio;
  options.clip_floor = c.floor;
  options.absent = absent;
  // the recording takes 1 - beta2 from a float32 number
  options.betas = {0.9, static_cast<double>(0.999f)};
  return options;
}

/// A loss whose gradient by row is the recorded one less L2's, all of it given to each id's first occurrence.
at::Tensor loss_of(const EmbeddingRows& rows, const at::Tensor& ids,
                   const std::vector<at::Tensor>& gradients) {
  auto loss = at::zeros({});
  for (std::int64_t field = 0; field < kFields; ++field) {
    std::vector<bool> seen(static_cast<std::size_t>(gradients[static_cast<std::size_t>(field)].size(0)));
    for (std::int64_t row = 0; row < ids.size(0); ++row) {
      const auto id = ids[row][field].item<std::int64_t>();
      if (seen[static_cast<std::size_t>(id)]) continue;
      seen[static_cast<std::size_t>(id)] = true;
      const auto g = gradients[static_cast<std::size_t>(field)][id];
      loss = loss + (rows.embeddings[row][field] * g.narrow(0, 0, kWidth - 1)).sum() +
             rows.linear[row][field] * g[kWidth - 1];
    }
  }
  return loss;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

class EmbeddingTablesGolden : public testing::TestWithParam<std::tuple<Case, AbsentRows>> {
 protected:
  /// All rows' moments, 0 or 1, every update done.
  at::Tensor moments(EmbeddingTables& tables, std::int64_t field, std::int64_t which) {
    return tables.state().at(format("tables.rows.{}", field)).narrow(1, (1 + which) * kWidth, kWidth).clone();
  }
};

TEST_P(EmbeddingTablesGolden, SixSteps) {
  const auto& [c, absent] = GetParam();
  std::vector<std::int64_t> sizes;
  for (std::int64_t field = 0; field < kFields; ++field)
    sizes.push_back(golden().at(format("{}/init/W.{}", c.name, field)).size(0));
  EmbeddingTables tables(sizes, options_of(c, absent), 1);
  std::vector<at::Tensor> weights, means(kFields);
  for (std::int64_t field = 0; field < kFields; ++field) {
    const auto start = both(format("{}/init/", c.name), field);
    tables.set_weights(field, start.narrow(1, 0, kWidth - 1), start.select(1, kWidth - 1));
    weights.push_back(start);
    means[static_cast<std::size_t>(field)] = at::zeros_like(start);
  }
  for (int step = 1; step <= kSteps; ++step) {
    const auto at_step = format("{}/step{}/", c.name, step);
    const auto ids = golden().at("ids")[(step - 1) % 4];
    std::vector<at::Tensor> gradients;
    for (std::int64_t field = 0; field < kFields; ++field)
      gradients.push_back(both(at_step + "grad/", field) -
                          2 * c.l2 * weights[static_cast<std::size_t>(field)]);
    loss_of(tables.lookup(ids), ids, gradients).backward();
    tables.step();
    tables.flush();
    for (std::int64_t field = 0; field < kFields; ++field) {
      const auto i = static_cast<std::size_t>(field);
      weights[i] = at::cat({tables.embeddings(field), tables.linear(field).unsqueeze(1)}, 1);
      EXPECT_LT(largest_difference(weights[i], both(at_step + "after/", field)), 1e-6) << at_step << field;
      const auto mean = moments(tables, field, 0);
      const auto clipped = ((mean - 0.9 * means[i]) / 0.1).narrow(1, 0, kWidth - 1);
      const auto recorded = golden().find(format("{}gclip/W.{}", at_step, field));
      const auto& expected =
          recorded != golden().end() ? recorded->second : golden().at(format("{}grad/W.{}", at_step, field));
      EXPECT_LT(largest_difference(clipped, expected), 1e-6) << at_step << field;
      means[i] = mean;
    }
  }
  for (std::int64_t field = 0; field < kFields; ++field) {
    EXPECT_LT(largest_difference(moments(tables, field, 0), both(format("{}/final_m/", c.name), field)),
              1e-7);
    for (const char* kind : {"W", "L"}) {
      const auto expected = golden().at(format("{}/final_v/{}.{}", c.name, kind, field));
      const auto all = moments(tables, field, 1);
      const auto v = *kind == 'W' ? all.narrow(1, 0, kWidth - 1) : all.narrow(1, kWidth - 1, 1);
      EXPECT_LT(largest_difference(v, expected), 3e-5 * expected.max().item<double>()) << kind << field;
    }
  }
}

std::string name_of(const testing::TestParamInfo<std::tuple<Case, AbsentRows>>& info) {
  static const std::map<AbsentRows, std::string> modes = {
      {AbsentRows::kDense, "dense"}, {AbsentRows::kReplay, "replay"}, {AbsentRows::kStrided, "strided"}};
  return std::get<0>(info.param).name + std::string("_") + modes.at(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, EmbeddingTablesGolden,
    testing::Combine(testing::Values(Case{"act", 1, 1e-5, 1e-3, 1e-3, RowClip::kCowClip},
                                     Case{"floor", 0.5, 2e-3, 1e-3, 1e-3, RowClip::kCowClip},
                                     Case{"inert", 1, 1, 1e-3, 1e-3, RowClip::kCowClip},
                                     Case{"base", 1, 1e-5, 1e-5, 1e-4, RowClip::kNone}),
                     testing::Values(AbsentRows::kDense, AbsentRows::kReplay, AbsentRows::kStrided)),
    name_of);

}  // namespace
}  // namespace stoa::nn
