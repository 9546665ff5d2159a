#!/usr/bin/env bash
# Compiles every CUDA kernel with nvcc, which needs neither a GPU nor a CUDA build of LibTorch; with warnings as errors.
# Says so and succeeds where there is no nvcc. Usage: scripts/check_cuda.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nvcc=$(command -v nvcc || true)
[[ -n $nvcc ]] || nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
if [[ ! -x $nvcc ]]; then
  echo "skipped: nvcc was not found"
  exit 0
fi

objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compile() {
  "$1" -std=c++17 -arch=sm_80 -Werror all-warnings -Isrc -c "$2" -o "$3/$(basename "$2").o" || { echo "$2 does not compile"; return 1; }
}
export -f compile
find src/stoa -name '*.cu' -print0 | xargs -0 -P "$(nproc)" -I{} bash -c 'compile "$@"' compile "$nvcc" {} "$objects"
echo "cuda: $(find "$objects" -name '*.o' | wc -l) files compiled"
