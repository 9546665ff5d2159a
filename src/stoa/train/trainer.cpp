#include "stoa/train/trainer.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/base/random.h"
#include "stoa/base/text.h"
#include "stoa/data/loader.h"
#include "stoa/dist/errors.h"
#include "stoa/optim/average.h"
#include "stoa/train/agreement.h"
#include "stoa/train/evaluation_rounds.h"
#include "stoa/train/events.h"
#include "stoa/train/phase_scope.h"
#include "stoa/train/shared_model.h"
#include "stoa/train/training_step.h"

namespace stoa {
namespace {

using Clock = std::chrono::steady_clock;

/// Puts the averaged weights, where there are any, in the model's place, in evaluation mode and without
/// gradients.
class EvaluationScope {
 public:
  EvaluationScope(torch::nn::Module& model, optim::MovingAverage* average)
      : model_(model), average_(average) {
    model_.eval();
    if (average_ != nullptr) average_->swap();
  }
  ~EvaluationScope() {
    if (average_ != nullptr) average_->swap();
    model_.train();
  }
  EvaluationScope(const EvaluationScope&) = delete;
  EvaluationScope& operator=(const EvaluationScope&) = delete;

 private:
  at::NoGradGuard no_gradients_;
  torch::nn::Module& model_;
  optim::MovingAverage* average_;
};

/// Shares a task's evaluations out over the replicas of a run, where the task can do so.
class SharingScope {
 public:
  SharingScope(Task& task, std::shared_ptr<dist::Group> replicas)
      : task_(dynamic_cast<SharesEvaluation*>(&task)) {
    if (task_ != nullptr) task_->share_evaluation(std::move(replicas));
  }
  ~SharingScope() {
    if (task_ != nullptr) task_->share_evaluation(nullptr);
  }
  SharingScope(const SharingScope&) = delete;
  SharingScope& operator=(const SharingScope&) = delete;

 private:
  SharesEvaluation* task_;
};

/// One run from where it stands to its end. Between two updates everything a checkpoint needs is in these
/// members, and all that is due at a step (line, evaluation, checkpoint, in this order) is done before the
/// next update.
class Training {
 public:
  Training(Recipe& recipe, Task& task, RunFolder& folder, const Runtime& runtime,
           std::optional<Checkpoint> from, const Team& team)
      : recipe_(recipe),
        task_(task),
        folder_(folder),
        runtime_(runtime),
        team_(team),
        store_(folder.checkpoints()),
        model_(recipe, task, team),
        steps_(total_steps(recipe.train, task.train_samples())) {
    if (from) restore(*from);
    if (!team.leads()) return;
    store_.clean();
    store_.remove_after(done_);
    log_ = std::make_unique<EventLog>(folder.path(), done_);
  }

  TrainResult run();
  TrainResult profile(std::int64_t recorded);

 private:
  std::uint64_t seed(SeedPurpose purpose) const {
    return mix_seed(
        {static_cast<std::uint64_t>(recipe_.train.seed), purpose, static_cast<std::uint64_t>(done_)});
  }
  bool due(std::int64_t every) const {
    return done_ > 0 && (done_ == steps_ || (every > 0 && done_ % every == 0));
  }

  void restore(const Checkpoint& from);
  void open_batches(const std::string& label, std::int64_t steps);
  ProfiledRun profiled_run(double step_ms) const;
  void update();
  BatchOutcome forward_and_backward(const Batch& batch, bool statistics);
  std::string last_good() const;
  void require_finite(const BatchOutcome& outcome, double gradient_norm) const;
  void write_line(const BatchOutcome& outcome, double lr, double gradient_norm);
  std::string detail(const BatchOutcome& outcome) const;
  Evaluation measure();
  void evaluate();
  void save();
  void write_checkpoint();
  void finish();
  std::string stop_message() const;

  Recipe& recipe_;
  Task& task_;
  RunFolder& folder_;
  const Runtime& runtime_;
  const Team& team_;
  CheckpointStore store_;
  SharedModel model_;  // of the task
  std::unique_ptr<EventLog> log_;
  std::unique_ptr<BatchSource> batches_;
  std::unique_ptr<Progress> progress_;

  std::int64_t steps_, done_ = 0;  // updates of the run, and those done
  bool unsaved_ = false;           // something of this step is in no checkpoint yet
  std::int64_t evaluated_ = 0;     // step of the latest evaluation, and its metrics
  Metrics metrics_;
  std::optional<Evaluation> final_;
  StepMeans means_;     // since the latest line
  double seconds_ = 0;  // spent on updates, earlier processes included
  double line_seconds_ = 0;
  std::int64_t line_samples_ = 0;
};

void Training::restore(const Checkpoint& from) {
  model_.load(from, (folder_.checkpoints() / format("step-{}", from.step)).string());
  done_ = from.step;
  metrics_ = Metrics::from_json(from.state.at("metrics"));
  evaluated_ = from.state.at("evaluated");
  means_.load(from.state.at("since_line"));
  seconds_ = from.state.at("seconds");
}

TrainResult Training::run() {
  if (done_ == steps_ && evaluated_ == steps_ && folder_.evaluated_step() == steps_) {
    log_info(format("{} has done all its {} steps already", folder_.path().string(), thousands(steps_)));
    return {folder_.path(), steps_, metrics_};
  }
  task_.model().train();
  if (done_ > 0 && done_ < steps_)
    agree_on_batches(team_, task_, recipe_.train);  // a new run has, before it had a folder
  if (done_ < steps_) open_batches("training", steps_);
  while (true) {
    if (due(recipe_.train.eval_every) && evaluated_ != done_) evaluate();
    if (due(recipe_.checkpoint.every) && unsaved_) save();
    if (done_ == steps_) break;
    if (team_.any(interrupted())) {
      if (unsaved_) save();
      throw Interrupted(stop_message());
    }
    update();
  }
  finish();
  return {folder_.path(), steps_, metrics_};
}

/// The data from the present step on, and a line that counts up to `steps`.
void Training::open_batches(const std::string& label, std::int64_t steps) {
  batches_ =
      task_.train_batches({recipe_.train.batch_size, static_cast<std::uint64_t>(recipe_.train.seed), done_,
                           static_cast<int>(recipe_.train.workers), team_.part(), team_.parts()});
  progress_ = std::make_unique<Progress>(label, "steps", steps);
  progress_->start_at(done_);
}

TrainResult Training::profile(std::int64_t recorded) {
  task_.model().train();
  const std::int64_t last = kProfileWarmUp + recorded;
  open_batches("profiling", last);
  std::optional<ProfileRecorder> recorder;
  double unrecorded = 0;  // seconds of the faster of the last two steps of the warm-up
  while (done_ < last) {
    if (interrupted()) throw Interrupted("stopped before the profile was complete; nothing was written");
    if (done_ == kProfileWarmUp) recorder.emplace(runtime_.device);
    const double before = seconds_;
    {
      const nn::PartScope step(kStepName);
      update();
    }
    const double seconds = seconds_ - before;
    if (done_ == kProfileWarmUp - 1) unrecorded = seconds;
    if (done_ == kProfileWarmUp) unrecorded = std::min(unrecorded, seconds);
  }
  const Recording recording = recorder->stop();
  batches_.reset();
  progress_->finish();
  TrainResult result{folder_.path(), done_, {}, summarize(recording, profiled_run(1e3 * unrecorded))};
  write_profile(folder_.path() / "profile", *result.profile, recording);
  return result;
}

ProfiledRun Training::profiled_run(double step_ms) const {
  ProfiledRun run;
  run.title = recipe_.title;
  run.samples = recipe_.train.batch_size;
  run.macs = task_.describe().macs();
  run.step_ms = step_ms;
  run.device = runtime_.device.str();
  run.precision = runtime_.bf16 ? "bf16" : "fp32";
  run.threads = runtime_.threads;
  run.cores = available_cores();
  run.workers = recipe_.train.workers;
  run.peak_memory = peak_memory();
  run.bf16_is_slow = runtime_.bf16 && runtime_.device.is_cpu() && !cpu_has_bf16();
  getloadavg(&run.load, 1);
  return run;
}

void Training::update() {
  const auto start = Clock::now();
  const TrainOptions& options = recipe_.train;
  const Batch batch = [&] {
    const PhaseScope phase(Phase::kData);
    return batches_->next();
  }();
  auto& optimizer = model_.optimizer();
  auto* const sparse = model_.sparse();
  optimizer.zero_grad();
  if (sparse != nullptr) sparse->zero_grad();
  const bool line = (done_ + 1) % options.log_every == 0 || done_ + 1 == steps_;
  const auto outcome = forward_and_backward(batch, line);
  const auto scale = [&] {
    const PhaseScope phase(Phase::kClip);
    return optimizer.clipping(options.clip_norm, options.clip == ClipKind::kTensor);
  }();
  const double norm = model_.joint_norm(scale.norm);
  require_finite(outcome, norm);
  const double lr = optim::learning_rate(recipe_.schedule, recipe_.optimizer.lr, done_, steps_);
  {
    const PhaseScope phase(Phase::kOptimizer);
    optimizer.step(lr, scale);
    if (sparse != nullptr) means_.add(sparse->step());
    model_.average_buffers();
    if (auto* const average = model_.average()) average->update();
  }
  ++done_;
  unsaved_ = true;
  means_.add(outcome.losses);
  means_.add(outcome.metrics);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  seconds_ += seconds;
  line_seconds_ += seconds;
  line_samples_ += options.batch_size;
  if (line) write_line(outcome, lr, norm);
  progress_->update(done_, detail(outcome));
  if (done_ == steps_) {
    batches_.reset();
    progress_->finish();
  }
}

BatchOutcome Training::forward_and_backward(const Batch& batch, bool statistics) {
  const auto weights = model_.pass();
  try {
    return accumulate_gradients(task_, batch, {done_, steps_}, recipe_.train.micro_batch_size, runtime_,
                                statistics, model_.share(seed(kStep)));
  } catch (const NumericError& error) {
    throw NumericError(format("step {}: {}; {}", done_ + 1, error.what(), last_good()));
  }
}

std::string Training::last_good() const {
  const auto kept = store_.steps();
  if (kept.empty()) return "there is no checkpoint yet";
  return format("the last good checkpoint is {}",
                (folder_.checkpoints() / format("step-{}", kept.back())).string());
}

void Training::require_finite(const BatchOutcome& outcome, double gradient_norm) const {
  const auto fail = [&](const std::string& what, double value) {
    throw NumericError(format(
        "step {}: {} is {}; {}; try a lower `optimizer.lr`, a longer `schedule.warmup` or `train.clip_norm`",
        done_ + 1, what, std::isnan(value) ? "nan" : format("{}", value), last_good()));
  };
  for (const auto& [name, value] : outcome.losses)
    if (!std::isfinite(value)) fail(name == "loss" ? "the loss" : format("the side loss `{}`", name), value);
  if (std::isfinite(gradient_norm)) return;
  if (const auto name = model_.first_not_finite(); !name.empty())
    fail(format("the norm of the gradients, that of `{}` first,", name), gradient_norm);
  fail(model_.sparse() == nullptr ? "the norm of the gradients"
                                  : "the norm of the gradients, of the tables first,",
       gradient_norm);
}

void Training::write_line(const BatchOutcome& outcome, double lr, double gradient_norm) {
  Json line = means_.means();
  line["lr"] = lr;
  line["gradient_norm"] = gradient_norm;
  line["samples_per_second"] = static_cast<double>(line_samples_) / line_seconds_;
  line["seconds"] = seconds_;
  if (!outcome.statistics.empty()) line["statistics"] = outcome.statistics;
  if (log_) log_->write("train", done_, line);
  means_.clear();
  line_seconds_ = 0;
  line_samples_ = 0;
}

std::string Training::detail(const BatchOutcome& outcome) const {
  std::string text = format("loss {:.4g}", outcome.losses.front().second);
  if (const std::string name = task_.primary_metric(); metrics_.has(name))
    text += format(", {} {:.4g}", name, metrics_[name]);
  return text;
}

Evaluation Training::measure() {
  const EvaluationScope scope(task_.model(), model_.average());
  const SharingScope sharing(task_, team_.replicas());
  const auto weights = model_.pass();
  const AutocastScope autocast(runtime_);
  at::manual_seed(seed(kEvaluate));
  std::unique_ptr<Progress> progress;  // the number of samples is known from the first call on
  const auto show = [&](std::int64_t done, std::int64_t total) {
    if (team_.alone() && interrupted()) throw Interrupted(stop_message());
    if (!progress) progress = std::make_unique<Progress>("evaluating", "samples", total);
    progress->update(done);
  };
  auto evaluation = task_.evaluate({recipe_.train.eval_batch_size, static_cast<int>(recipe_.train.workers),
                                    /*exhibits=*/done_ == steps_, show});
  if (progress) progress->finish();
  log_info(format("step {}: {}", thousands(done_), evaluation.metrics.text()));
  return evaluation;
}

void Training::evaluate() {
  try {
    auto evaluation = measure();
    metrics_ = evaluation.metrics;
    if (done_ == steps_) final_ = std::move(evaluation);
  } catch (...) {  // the updates are good all the same; a resumed run starts with this evaluation
    try {
      // others are still at their evaluation, and meet nobody who saves
      if (unsaved_ && !model_.saving_needs_others()) write_checkpoint();
    } catch (const dist::DistributedError&) {  // of the others, who may have found no fault
    } catch (const IoError& error) {           // besides what is wrong here
      log_warning(error.what());
    }
    throw;
  }
  evaluated_ = done_;
  unsaved_ = true;
  if (log_) log_->write("eval", done_, metrics_.to_json());
}

void Training::save() {
  write_checkpoint();
  team_.any(false);  // nobody goes on, or ends well, who has given its part before rank 0 has written all
  unsaved_ = false;
}

/// All processes give what is theirs, tensor by tensor, and rank 0 writes it.
void Training::write_checkpoint() {
  auto checkpoint = model_.checkpoint();
  if (!team_.leads()) return checkpoint.bring();
  checkpoint.step = done_;
  checkpoint.state = {{"metrics", metrics_.to_json()},
                      {"evaluated", evaluated_},
                      {"since_line", means_.state()},
                      {"seconds", seconds_}};
  std::optional<double> value;
  if (evaluated_ == done_) value = metrics_[task_.primary_metric()];
  store_.save(checkpoint, recipe_.checkpoint, value, task_.higher_is_better());
}

void Training::finish() {
  if (!final_) final_ = measure();  // the process that did the last step ended before it wrote this file
  model_.join();                    // rank 0 measures alone
  if (!team_.leads()) return;
  write_evaluation(folder_.path(), *final_, measure_inference(task_, runtime_, recipe_.train.eval_batch_size),
                   done_);
  Json info = folder_.info();
  info["peak_memory"] = peak_memory();
  folder_.write_info(info);
}

std::string Training::stop_message() const {
  return format("stopped after step {} of {}; go on with: stoa train --resume {}", done_, steps_,
                folder_.path().string());
}

}  // namespace

TrainResult train(Recipe& recipe, Task& task, RunFolder& folder, const Runtime& runtime,
                  std::optional<Checkpoint> from, const Team& team) {
  task.model().to(runtime.device);
  // which frees the checkpoint: tables are large
  Training training(recipe, task, folder, runtime, std::move(from), team);
  return training.run();
}

TrainResult profile_training(Recipe& recipe, Task& task, RunFolder& folder, const Runtime& runtime,
                             std::int64_t steps, const Team& team) {
  constexpr std::int64_t kMost = 100;  // a recording holds some thousand events a step
  if (!team.alone())
    throw ConfigError("a profile is made of one process; start `stoa train --profile` by itself");
  if (steps < 1 || steps > kMost)
    throw ConfigError(format("a profile of {} steps; from 1 to {} are needed", steps, kMost));
  const std::int64_t all = total_steps(recipe.train, task.train_samples());
  if (all < kProfileWarmUp + steps)
    throw ConfigError(
        format("a profile of {} steps takes {} that warm up and trains {} in all; the recipe trains {}: set "
               "`train.steps` higher",
               steps, kProfileWarmUp, kProfileWarmUp + steps, all));
  task.model().to(runtime.device);
  return Training(recipe, task, folder, runtime, std::nullopt, team).profile(steps);
}

}  // namespace stoa
