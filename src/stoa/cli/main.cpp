#include "stoa/cli/program.h"
#include "stoa/tensor/host_allocator.h"

int main(int argc, char** argv) {
  stoa::configure_allocator();
  return stoa::cli::run(argc, argv);
}
