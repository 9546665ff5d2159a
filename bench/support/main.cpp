// main() of the programs in bench/ops: the allocator and the threads as the command `stoa` sets them, then
// Google Benchmark.
#include <benchmark/benchmark.h>

#include "stoa/tensor/host_allocator.h"
#include "stoa/tensor/runtime.h"

int main(int argc, char** argv) {
  stoa::configure_allocator();
  stoa::configure_runtime({});
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
