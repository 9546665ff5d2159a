#include "stoa/cli/comparison.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/base/text.h"
#include "stoa/cli/table.h"
#include "stoa/dist/environment.h"
#include "stoa/optim/scaling.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

/// What a run of the comparison changes of its recipe.
std::vector<std::string> changes(const optim::BatchSettings& scaled, optim::ScalingRule rule,
                                 std::int64_t train_samples) {
  std::vector<std::string> set = {"comparison.factors=[]",
                                  "train.eval_every=0",
                                  format("train.batch_size={}", scaled.batch),
                                  format("embedding.lr={}", scaled.embedding_lr),
                                  format("optimizer.lr={}", scaled.dense_lr),
                                  format("embedding.l2={}", scaled.l2)};
  if (rule == optim::ScalingRule::kN2Lambda || rule == optim::ScalingRule::kCowClip) {
    const std::int64_t epoch = (train_samples + scaled.batch - 1) / scaled.batch;
    set.push_back("embedding.init_std=0.01");
    set.push_back(format("schedule.warmup={}", std::max<std::int64_t>(epoch - 1, 1)));
    set.push_back("schedule.start=1e-8");
  }
  if (rule == optim::ScalingRule::kCowClip) set.push_back("embedding.clip=\"cowclip\"");
  return set;
}

TrainRequest request_for(const Config& recipe, const std::vector<std::string>& set, const fs::path& folder) {
  TrainRequest request;
  request.recipe = recipe;
  for (const auto& assignment : set) request.recipe->set(assignment);
  (fs::exists(folder / "recipe.toml") ? request.resume : request.out) = folder;
  return request;
}

}  // namespace

Json compare_rules(const fs::path& run) {
  const RunFolder folder = RunFolder::open(run);
  const Config config = folder.recipe();
  Recipe recipe = read_recipe(config, catalog());
  const Json all = recipe.resolved();
  if (!all.contains("comparison") || all["comparison"]["factors"].empty()) return Json::array();
  if (dist::read_place().world > 1) {
    log_warning(
        format("several processes leave out the recipe's [comparison]; for its table: stoa train --resume {}",
               run.string()));
    return Json::array();
  }
  const auto factors = all["comparison"]["factors"].get<std::vector<std::int64_t>>();
  const auto rules = all["comparison"]["rules"].get<std::vector<std::string>>();
  const optim::BatchSettings base{recipe.train.batch_size, all["embedding"]["lr"], recipe.optimizer.lr,
                                  all["embedding"]["l2"]};
  Json rows = {{{"batch", base.batch},
                {"factor", 1},
                {"rule", ""},
                {"metrics", Json::parse(read_file(run / "evaluation.json")).at("metrics")}}};
  const std::size_t runs = factors.size() * rules.size();
  for (const std::int64_t factor : factors)
    for (const std::string& name : rules) {
      const auto rule = optim::scaling_rule(name);
      const auto scaled = optim::scale_batch(base, factor * base.batch, rule);
      log_info(format("comparison, {} of {}: batch {} by rule {}", rows.size(), runs, thousands(scaled.batch),
                      name));
      try {
        const auto result =
            run_training(request_for(config, changes(scaled, rule, folder.info().at("train_samples")),
                                     run / "comparison" / format("x{}-{}", factor, name)),
                         catalog());
        rows.push_back({{"batch", scaled.batch},
                        {"factor", factor},
                        {"rule", name},
                        {"metrics", result.metrics.to_json()}});
      } catch (const Interrupted&) {
        throw Interrupted(
            format("stopped in run {} of {} of the comparison; go on with: stoa train --resume {}",
                   rows.size(), runs, run.string()));
      }
    }
  return rows;
}

std::string comparison_text(const Json& rows) {
  std::vector<std::vector<std::string>> table = {{"batch", "rule", "AUC", "log loss"}};
  std::int64_t before = 1;
  for (const auto& row : rows) {
    const std::int64_t factor = row.at("factor");
    if (factor != std::exchange(before, factor)) table.emplace_back();
    table.push_back({format("{} (x{})", thousands(row.at("batch").get<std::int64_t>()), factor),
                     factor == 1 ? "as the recipe says" : row.at("rule").get<std::string>(),
                     format("{:.4f}", row.at("metrics").at("auc").get<double>()),
                     format("{:.4f}", row.at("metrics").at("logloss").get<double>())});
  }
  return format("The same recipe at larger batches, its settings scaled by each rule (one seed):\n\n{}",
                text_table(table));
}

}  // namespace stoa::cli
