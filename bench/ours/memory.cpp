// Peak memory of one attention block, forward and backward, on each of several processes: heads split over
// them (tensor parallel), Ring Self-Attention as published, blockwise ring attention; beside the formulas of
// dist/plan_costs.h, by which `stoa plan --table length` goes on to 1024 ranks. Not a worker of bench/run.sh:
//   build/release/bench/bench_memory              4K to 16K tokens on 1 to 8 processes, some minutes
//   build/release/bench/bench_memory --all        to 64K, an hour or more
//   build/release/bench/bench_memory 4096 8192    these lengths
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
void block(BlockMethod method, std::int64_t tokens, std::int64_t heads, dist::Group* group) {
  const std::int64_t inner = heads * kHeadDim;
  const auto x = at::randn({1, tokens, kWidth}).requires_grad_();
  const auto w_qkv = (at::randn({3 * inner, kWidth}) * 0.04).requires_grad_();
  const auto w_out = (at::randn({kWidth, inner}) * 0.04).requires_grad_();
  const auto mixed = [&] {
    const auto parts = ops::linear(x, w_qkv, {}).view({1, tokens, 3, heads, kHeadDim}).unbind(2);
    if (method == BlockMethod::kTensorScores) return scores_kept(parts[0], parts[1], parts[2]);
    if (method == BlockMethod::kTensorTiled) return ops::block_attention(parts[0], parts[1], parts[2]).out;
    dist::SequenceAttentionOptions options;
    options.method = method == BlockMethod::kRsa ? dist::SequenceMethod::kRsa : dist::SequenceMethod::kRing;
    return sequence_attention(parts[0], parts[1], parts[2], *group, options);
  };
  const auto out = ops::linear(mixed().reshape({1, tokens, inner}), w_out, {});
  out.backward(at::ones_like(out));
}

/// In a child: measures and writes what was found into a file.
void measure(const Json& spec) {
  configure_allocator();
  at::set_num_threads(1);
  at::manual_seed(1);
  const auto method = kMethods[spec.at("method").get<std::size_t>()];
  const std::int64_t length = spec.at("length"), ranks = spec.at("ranks");
  std::shared_ptr<dist::World> world;
  dist::WorldOptions patient;
  patient.timeout_s = 3600;
  if (!by_heads(method)) world = dist::World::join(dist::read_place(), patient);
  auto* const group = world ? &world->all() : nullptr;
  auto& meter = test::TensorMeter::get();
  block(method, 128, by_heads(method) ? kHeads / ranks : kHeads, group);  // what a first call sets up
  std::ofstream("/proc/self/clear_refs") << "5";
  const double before = resident("VmRSS");
  meter.start();
  if (by_heads(method))
    block(method, length, kHeads / ranks, nullptr);
  else
    block(method, length / ranks, kHeads, group);
  std::ofstream(spec.at("file").get<std::string>())
      << Json{{"tensors", meter.peak()}, {"resident", resident("VmHWM") - before}};
}

struct Measured {
  double tensors = 0, resident = 0;  ///< of the rank that takes the most
};

Measured run(std::size_t method, std::int64_t length, std::int64_t ranks) {
  // a rank of tensor parallelism has no need of the others to show its memory
  const std::int64_t processes = by_heads(kMethods[method]) ? 1 : ranks;
  const auto port = std::to_string(dist::free_port()), world = std::to_string(processes);
  std::vector<ChildCommand> commands;
  std::vector<fs::path> files;
  for (std::int64_t rank = 0; rank < processes; ++rank) {
    files.push_back(fs::temp_directory_path() / format("stoa-bench-memory-{}-{}", ::getpid(), rank));
    const Json spec = {
        {"method", method}, {"length", length}, {"ranks", ranks}, {"file", files.back().string()}};
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
    throw Error(format("a process of {} failed", name_of(kMethods[method])));
  Measured measured;
  for (const auto& file : files) {
    std::ifstream in(file);
    const Json found = Json::parse(in);
    measured.tensors = std::max(measured.tensors, found.at("tensors").get<double>());
    measured.resident = std::max(measured.resident, found.at("resident").get<double>());
    fs::remove(file);
  }
  return measured;
}

void measure_all(const std::vector<std::int64_t>& lengths) {
  std::printf("| method | ranks | tokens | tensors MB | formula MB | ratio | resident MB |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  for (std::size_t method = 0; method < std::size(kMethods); ++method)
    for (const std::int64_t ranks : {1, 2, 4, 8})
      for (const auto length : lengths) {
        const dist::BlockShape shape{1,      static_cast<double>(length),   kWidth,
                                     kHeads, static_cast<double>(kHeadDim), static_cast<double>(ranks)};
        const double formula = block_peak_bytes(kMethods[method], shape);
        const double all = formula * (by_heads(kMethods[method]) ? 1 : static_cast<double>(ranks));
        if (all > kMost) continue;
        const auto found = run(method, length, ranks);
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
    measure(Json::parse(spec));
    return 0;
  }
  std::vector<std::int64_t> lengths = {4096, 8192, 16384};
  const std::vector<std::string> words(argv + 1, argv + argc);
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
  measure_all(lengths);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_memory: %s\n", error.what());
  return 1;
}
