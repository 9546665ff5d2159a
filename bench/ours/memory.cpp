// Peak memory of one attention block, forward and backward, on each of several processes: heads split over
// them (tensor parallel), Ring Self-Attention as published, blockwise ring attention; beside the formulas of
// dist/plan_costs.h, by which `stoa plan --table length` goes on to 1024 ranks. Not a worker of bench/run.sh:
//   build/release/bench/bench_memory              4K to 16K tokens on 1 to 8 processes, some minutes
//   build/release/bench/bench_memory --all        to 64K, an hour or more
//   build/release/bench/bench_memory 4096 8192    these lengths
//   build/release/bench/bench_memory --ranks 8 65536    on so many processes alone
//   build/release/bench/bench_memory --search 128
//       the longest sequence and the largest batch of 512 tokens each whose block runs where a process is
//       refused tensors beyond 128 MiB, found by trying; minutes
// Batch 1, 8 heads of 64, fp32, one thread a process. What would take more than 6 GiB in all is left out.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>

#include "stoa/base/child_processes.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/json.h"
#include "stoa/dist/free_port.h"
#include "stoa/dist/plan_costs.h"
#include "stoa/dist/sequence/sequence_attention.h"
#include "stoa/dist/world.h"
#include "stoa/ops/block_attention.h"
#include "stoa/ops/linear.h"
#include "stoa/tensor/host_allocator.h"
#include "tests/support/tensor_meter.h"

namespace {

namespace fs = std::filesystem;
using namespace stoa;
using dist::BlockMethod;

constexpr const char* kSpec = "STOA_BENCH_MEMORY";  // what a child measures, as JSON
constexpr std::int64_t kHeads = 8, kHeadDim = 64, kWidth = kHeads * kHeadDim;
constexpr double kMost = 6.0 * (1 << 30);
constexpr BlockMethod kMethods[] = {BlockMethod::kTensorScores, BlockMethod::kTensorTiled, BlockMethod::kRsa,
                                    BlockMethod::kRing};

bool by_heads(BlockMethod method) {
  return method == BlockMethod::kTensorScores || method == BlockMethod::kTensorTiled;
}

/// "VmHWM: 123 kB" of /proc/self/status, or "VmRSS".
double resident(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) return 1024 * std::stod(line.substr(key.size() + 1));
  return 0;
}

at::Tensor scores_kept(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto rows = [](const at::Tensor& x) { return x.transpose(1, 2); };
  const auto scores = rows(q).matmul(rows(k).transpose(2, 3)) / std::sqrt(static_cast<double>(kHeadDim));
  return scores.softmax(3).matmul(rows(v)).transpose(1, 2);
}

/// x W_qkv, attention, times W_out, and the gradients of all three.
void block(BlockMethod method, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
           dist::Group* group) {
  const std::int64_t inner = heads * kHeadDim;
  const auto x = at::randn({batch, tokens, kWidth}).requires_grad_();
  const auto w_qkv = (at::randn({3 * inner, kWidth}) * 0.04).requires_grad_();
  const auto w_out = (at::randn({kWidth, inner}) * 0.04).requires_grad_();
  const auto mixed = [&] {
    const auto parts = ops::linear(x, w_qkv, {}).view({batch, tokens, 3, heads, kHeadDim}).unbind(2);
    if (method == BlockMethod::kTensorScores) return scores_kept(parts[0], parts[1], parts[2]);
    if (method == BlockMethod::kTensorTiled) return ops::block_attention(parts[0], parts[1], parts[2]).out;
    dist::SequenceAttentionOptions options;
    options.method = method == BlockMethod::kRsa ? dist::SequenceMethod::kRsa : dist::SequenceMethod::kRing;
    return sequence_attention(parts[0], parts[1], parts[2], *group, options);
  };
  const auto out = ops::linear(mixed().reshape({batch, tokens, inner}), w_out, {});
  out.backward(at::ones_like(out));
}

/// What a child is asked: what one rank of so many takes for a block.
struct Question {
  std::size_t method = 0;  ///< of kMethods
  std::int64_t batch = 1, length = 0, ranks = 1;
  std::int64_t limit = 0;  ///< bytes of tensors that it gets; 0 only measures

  Json json() const {
    return {{"method", method}, {"batch", batch}, {"length", length}, {"ranks", ranks}, {"limit", limit}};
  }
  static Question from(const Json& json) {
    return {json.at("method"), json.at("batch"), json.at("length"), json.at("ranks"), json.at("limit")};
  }
};

/// Runs the block where more than the limit is refused.
Json try_block(const Question& question, const std::function<void()>& pass) {
  auto& meter = test::TensorMeter::get();
  meter.allow(static_cast<std::size_t>(question.limit));
  std::string failed;
  try {
    pass();
  } catch (const std::exception& error) {  // of the others, too, where one was refused
    failed = error.what();
  }
  return {{"refused", meter.refused()}, {"failed", failed}};
}

Json measure_block(const std::function<void()>& pass) {
  std::ofstream("/proc/self/clear_refs") << "5";
  const double before = resident("VmRSS");
  auto& meter = test::TensorMeter::get();
  meter.start();
  pass();
  return {{"tensors", meter.peak()}, {"resident", resident("VmHWM") - before}};
}

/// In a child: answers into a file, and ends without waiting for ranks that may have failed.
[[noreturn]] void answer(const Json& spec) {
  configure_allocator();
  at::set_num_threads(1);
  at::manual_seed(1);
  const auto question = Question::from(spec.at("question"));
  test::TensorMeter::get();  // in place before the first tensor
  const auto method = kMethods[question.method];
  std::shared_ptr<dist::World> world;
  dist::WorldOptions patient;
  patient.timeout_s = 3600;
  if (!by_heads(method)) world = dist::World::join(dist::read_place(), patient);
  auto* const group = world ? &world->all() : nullptr;
  const std::int64_t heads = by_heads(method) ? kHeads / question.ranks : kHeads;
  const std::int64_t tokens = by_heads(method) ? question.length : question.length / question.ranks;
  block(method, 1, 128, heads, group);  // what a first call sets up
  const auto pass = [&] { block(method, question.batch, tokens, heads, group); };
  const auto found = question.limit > 0 ? try_block(question, pass) : measure_block(pass);
  std::ofstream(spec.at("file").get<std::string>()) << found;
  std::_Exit(0);
}

/// What the ranks answer.
std::vector<Json> ask(const Question& question) {
  // a rank of tensor parallelism has no need of the others to show its memory
  const auto method = kMethods[question.method];
  const std::int64_t processes = by_heads(method) ? 1 : question.ranks;
  const auto port = std::to_string(dist::free_port()), world = std::to_string(processes);
  std::vector<ChildCommand> commands;
  std::vector<fs::path> files;
  for (std::int64_t rank = 0; rank < processes; ++rank) {
    files.push_back(fs::temp_directory_path() / format("stoa-bench-memory-{}-{}", ::getpid(), rank));
    const Json spec = {{"question", question.json()}, {"file", files.back().string()}};
    const auto number = std::to_string(rank);
    commands.push_back({{fs::read_symlink("/proc/self/exe").string()},
                        {{kSpec, spec.dump()},
                         {"RANK", number},
                         {"LOCAL_RANK", number},
                         {"WORLD_SIZE", world},
                         {"LOCAL_WORLD_SIZE", world},
                         {"MASTER_ADDR", "127.0.0.1"},
                         {"MASTER_PORT", port},
                         {"OMP_NUM_THREADS", "1"}},
                        ""});
  }
  if (const auto end = run_children(commands); end.failed_first || end.interrupted)
    throw Error(format("a process of {} failed", name_of(method)));
  std::vector<Json> found;
  for (const auto& file : files) {
    std::ifstream in(file);
    found.push_back(Json::parse(in));
    fs::remove(file);
  }
  return found;
}

dist::BlockShape shape_of(const Question& question) {
  return {static_cast<double>(question.batch), static_cast<double>(question.length), kWidth, kHeads,
          static_cast<double>(kHeadDim),       static_cast<double>(question.ranks)};
}

struct Measured {
  double tensors = 0, resident = 0;  ///< of the rank that takes the most
};

Measured run(const Question& question) {
  Measured measured;
  for (const auto& found : ask(question)) {
    measured.tensors = std::max(measured.tensors, found.at("tensors").get<double>());
    measured.resident = std::max(measured.resident, found.at("resident").get<double>());
  }
  return measured;
}

/// Whether the block runs on all ranks within the limit.
bool fits(const Question& question) {
  bool refused = false;
  std::string failed;
  for (const auto& found : ask(question)) {
    refused = refused || found.at("refused").get<bool>();
    if (failed.empty()) failed = found.at("failed");
  }
  if (!refused && !failed.empty()) throw Error(failed);
  return !refused;
}

/// The most steps that fit, found by trying; the search begins at a guess.
template <class Fits>
std::int64_t most_that_fit(std::int64_t guess, const Fits& try_steps) {
  constexpr std::int64_t kPartOfGuess = 16;
  std::int64_t stride = std::max<std::int64_t>(1, guess / kPartOfGuess);
  std::int64_t least = 0, most = 0;  // fits, does not
  const auto at = std::max<std::int64_t>(1, guess);
  if (try_steps(at)) {
    for (least = at; most == 0; stride *= 2) {
      const auto next = least + stride;
      (try_steps(next) ? least : most) = next;
    }
  } else {
    for (most = at; most > 1 && least == 0; stride *= 2) {
      const auto next = std::max<std::int64_t>(1, most - stride);
      (try_steps(next) ? least : most) = next;
    }
  }
  while (most - least > 1) {
    const auto middle = (least + most) / 2;
    (try_steps(middle) ? least : most) = middle;
  }
  return least;
}

constexpr std::int64_t kStep = 128, kSearchLength = 512;  // tokens

/// Longest sequences and largest batches by method and ranks, beside the formulas.
void search_all(std::int64_t limit) {
  std::printf(
      "| method | ranks | longest sequence | computed | largest batch of %d tokens | computed "
      "|\n|---|---|---|---|---|---|\n",
      static_cast<int>(kSearchLength));
  const auto bytes = static_cast<double>(limit);
  for (std::size_t method = 0; method < std::size(kMethods); ++method)
    for (const std::int64_t ranks : {1, 2, 4}) {
      Question question{method, 1, kSearchLength, ranks, limit};
      const auto computed =
          std::llround(longest_sequence(kMethods[method], shape_of(question), bytes, kStep));
      const auto longest = kStep * most_that_fit(computed / kStep, [&](std::int64_t steps) {
                             question.length = steps * kStep;
                             return fits(question);
                           });
      question.length = kSearchLength;
      std::int64_t batch = 0;
      do question.batch = ++batch;
      while (block_peak_bytes(kMethods[method], shape_of(question)) <= bytes);
      const auto largest = most_that_fit(--batch, [&](std::int64_t samples) {
        question.batch = samples;
        return fits(question);
      });
      std::printf("%s\n", format("| {} | {} | {} | {} | {} | {} |", name_of(kMethods[method]), ranks, longest,
                                 computed, largest, batch)
                              .c_str());
      std::fflush(stdout);
    }
}

void measure_all(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& worlds) {
  std::printf("| method | ranks | tokens | tensors MB | formula MB | ratio | resident MB |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  for (std::size_t method = 0; method < std::size(kMethods); ++method)
    for (const auto ranks : worlds)
      for (const auto length : lengths) {
        const Question question{method, 1, length, ranks};
        const double formula = block_peak_bytes(kMethods[method], shape_of(question));
        const double all = formula * (by_heads(kMethods[method]) ? 1 : static_cast<double>(ranks));
        if (all > kMost) continue;
        const auto found = run(question);
        std::printf("%s\n", format("| {} | {} | {} | {:.1f} | {:.1f} | {:.3f} | {:.1f} |",
                                   name_of(kMethods[method]), ranks, length, found.tensors / 1e6,
                                   formula / 1e6, formula / found.tensors, found.resident / 1e6)
                                .c_str());
        std::fflush(stdout);
      }
}

}  // namespace

int main(int argc, char** argv) try {
  if (const char* spec = std::getenv(kSpec)) {
    answer(Json::parse(spec));
  }
  std::vector<std::int64_t> lengths = {4096, 8192, 16384}, worlds = {1, 2, 4, 8};
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "--search") {
    const auto mebibytes = std::atoll(words[1].c_str());
    if (mebibytes < 16) throw ConfigError(format("--search is `{}`; 16 MiB or more are needed", words[1]));
    search_all(mebibytes << 20);
    return 0;
  }
  if (words.size() >= 2 && words[0] == "--ranks") {
    worlds = {std::atoll(words[1].c_str())};
    if (worlds[0] < 1 || worlds[0] > 8 || 8 % worlds[0] != 0)
      throw ConfigError(format("--ranks is `{}`; 1, 2, 4 or 8 is needed", words[1]));
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words == std::vector<std::string>{"--all"}) {
    lengths.insert(lengths.end(), {32768, 65536});
  } else if (!words.empty()) {
    lengths.clear();
    for (const auto& word : words) {
      lengths.push_back(std::atoll(word.c_str()));
      if (lengths.back() < 8 || lengths.back() % 8 != 0)
        throw ConfigError(
            format("`{}` is no length that 8 processes can share; --all, or numbers of tokens", word));
    }
  }
  measure_all(lengths, worlds);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_memory: %s\n", error.what());
  return 1;
}
