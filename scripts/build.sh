#!/usr/bin/env bash
# Sets up and builds: scripts/build.sh [PRESET [TARGET...]], all of release if none is named (CMakePresets.json lists presets).
# The program is then build/PRESET/stoa. The compiler cache is kept in .deps/ccache unless CCACHE_DIR names another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=${1:-release}
export CCACHE_DIR=${CCACHE_DIR:-$PWD/.deps/ccache} NINJA_STATUS='[%f/%t, %e s] '

scripts/setup.sh
if [ ! -e "build/$preset/build.ninja" ]; then  # later changes of the build files are noticed by ninja itself
  echo "build: configuring build/$preset"
  output=$(cmake --preset "$preset" 2>&1) || {
    echo "$output" >&2
    echo "build: configuring build/$preset failed; the reason stands above at the first \"CMake Error\"" >&2
    exit 1
  }
fi

# A file that sees LibTorch takes up to 1.5 GB to compile: fewer at once than cores where memory is short.
jobs=$(awk -v cores="$(nproc)" '/^MemTotal/ { n = int($2 / 1.5e6); print n < 1 ? 1 : n < cores ? n : cores }' /proc/meminfo)
targets=("${@:2}")
cmake --build "build/$preset" -j "$jobs" ${targets:+--target "${targets[@]}"}
[ ! -x "build/$preset/stoa" ] || echo "build: the program is build/$preset/stoa"
