// Attention of sequences that are split over processes, forward and backward, on queries, keys and values
// that one product leaves side by side. The process that bench/run.sh starts runs the others, and its rank 0
// answers.
//   {"tokens": 4096 in all, "ranks": 2, "heads": 8, "head_dim": 64, "causal": false, "method": "ring" or
//   "rsa",
//    "order": "zigzag", "overlap": true}
// A repetition ends when all ranks have ended theirs.
#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "bench/support/worker.h"
#include "stoa/base/child_processes.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/free_port.h"
#include "stoa/dist/sequence/sequence_attention.h"
#include "stoa/dist/world.h"
#include "stoa/tensor/host_allocator.h"
#include "stoa/tensor/runtime.h"

namespace {

using namespace stoa;

enum class Task : std::int64_t { kEnd, kRun, kGather, kTally };

/// What each rank does of the work.
class Part {
 public:
  explicit Part(const Json& spec)
      : world_(dist::World::join(dist::read_place(), patient())), group_(world_->all()) {
    options_.method = spec.at("method") == "rsa" ? dist::SequenceMethod::kRsa : dist::SequenceMethod::kRing;
    options_.all_reduce_sums = true;  // RSA as published
    options_.order = spec.at("order") == "zigzag" ? dist::TokenOrder::kZigzag : dist::TokenOrder::kContiguous;
    options_.causal = spec.at("causal").get<bool>();
    options_.overlap = spec.value("overlap", true);
    options_.timings = std::make_shared<dist::SequenceTimings>();
    const std::int64_t tokens = bench::integer(spec, "tokens"), heads = bench::integer(spec, "heads"),
                       dim = bench::integer(spec, "head_dim");
    const auto own = [&](const at::Tensor& whole) {
      return chunk_of(whole, 1, options_.order, group_.size(), group_.rank());
    };
    qkv_ = own(at::randn({1, tokens, 3, heads, dim})).requires_grad_();  // of one seed on all ranks
    grad_ = own(at::randn({1, tokens, heads, dim}));
    const auto before = group_.traffic().bytes;
    out_ = step();  // what a first call sets up
    sent_ = group_.traffic().bytes - before;
  }

  dist::Group& group() const { return group_; }
  std::int64_t sent() const { return sent_; }

  at::Tensor step() {
    qkv_.mutable_grad() = at::Tensor();
    const auto parts = qkv_.unbind(2);
    const auto out = sequence_attention(parts[0], parts[1], parts[2], group_, options_);
    out.backward(grad_);
    return out.detach();
  }

  /// The same on all ranks, each of which calls it with what rank 0 is told to do.
  void perform(Task task) {
    if (task == Task::kRun) {
      out_ = step();
      group_.barrier();
    } else if (task == Task::kGather) {
      const auto whole = [&](const at::Tensor& x) {
        return dist::gather_tokens(x, 1, options_.order, group_).contiguous();
      };
      gathered_ = {{{"qkv", whole(qkv_)},
                    {"grad", whole(grad_)},
                    {"out", whole(step())},
                    {"grad.qkv", whole(qkv_.grad())}},
                   {}};
    } else if (task == Task::kTally) {
      const auto waited = at::full({1}, options_.timings->waited_s, at::kDouble);
      group_.all_reduce(waited);
      waited_ = waited.item<double>() / group_.size();
    }
  }

  /// Whole sequences in their own order, after kGather.
  const TensorFile& gathered() const { return gathered_; }
  /// Seconds that a rank has waited for messages so far, the mean of all, after kTally.
  double waited() const { return waited_; }

  /// Rank 0's task goes to all.
  Task told(Task task) {
    const auto word = at::full({1}, static_cast<std::int64_t>(task), at::kLong);
    group_.broadcast(word, 0);
    return static_cast<Task>(word.item<std::int64_t>());
  }

 private:
  static dist::WorldOptions patient() {
    dist::WorldOptions options;
    options.timeout_s = 24 * 3600;  // others take their turns
    options.join_timeout_s = 60;
    return options;
  }

  std::shared_ptr<dist::World> world_;
  dist::Group& group_;
  dist::SequenceAttentionOptions options_;
  at::Tensor qkv_, grad_, out_;
  std::int64_t sent_ = 0;
  double waited_ = 0;
  TensorFile gathered_;
};

class SplitAttention final : public bench::Work {
 public:
  explicit SplitAttention(const Json& spec)
      : part_(spec),
        pairs_(static_cast<double>(bench::integer(spec, "tokens") * bench::integer(spec, "tokens")) *
               (spec.at("causal").get<bool>() ? 0.5 : 1)),
        width_(static_cast<double>(bench::integer(spec, "heads") * bench::integer(spec, "head_dim"))) {}
  ~SplitAttention() override {
    try {
      part_.told(Task::kEnd);
    } catch (const std::exception&) {  // then they have ended already
    }
  }

  void run() override { all(Task::kRun); }

  Json describe() override {
    return {
        {"processes", part_.group().size()}, {"sent", part_.sent()}, {"flops", 2.0 * 7 * pairs_ * width_}};
  }
  Json tallies() override {
    all(Task::kTally);
    return {{"waited", part_.waited()}};
  }
  TensorFile reference() override {
    all(Task::kGather);
    return part_.gathered();
  }

 private:
  void all(Task task) { part_.perform(part_.told(task)); }

  Part part_;
  double pairs_, width_;
};

/// Rank 0 answers the driver, the others do what it tells them.
int take_part(int argc, char** argv) {
  if (dist::read_place().rank == 0)
    return bench::serve(argc, argv, [](const Json& spec) { return std::make_unique<SplitAttention>(spec); });
  configure_allocator();
  configure_runtime({});
  at::manual_seed(1);
  Part part(Json::parse(argv[1]));
  for (Task task; (task = part.told(Task::kEnd)) != Task::kEnd;) part.perform(task);
  return 0;
}

int start_all(char** argv) {
  const Json spec = Json::parse(argv[1]);
  const auto ranks = bench::integer(spec, "ranks");
  const auto port = std::to_string(dist::free_port()), world = std::to_string(ranks);
  const auto program = std::filesystem::read_symlink("/proc/self/exe").string();
  std::vector<ChildCommand> commands;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    const auto number = std::to_string(rank);
    commands.push_back({{program, argv[1]},
                        {{"RANK", number},
                         {"LOCAL_RANK", number},
                         {"WORLD_SIZE", world},
                         {"LOCAL_WORLD_SIZE", world},
                         {"MASTER_ADDR", "127.0.0.1"},
                         {"MASTER_PORT", port}},
                        rank == 0 ? "" : format("rank {}: ", rank)});
  }
  const auto end = run_children(commands);
  return end.failed_first || end.interrupted ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2)
    throw ConfigError("one argument is needed, the work as JSON; bench/run.sh starts this program");
  return std::getenv("RANK") == nullptr ? start_all(argv) : take_part(argc, argv);
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_ring: %s\n", error.what());
  return 1;
}
