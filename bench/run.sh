#!/usr/bin/env bash
# Measures Stoa beside what a user would pick instead, on this machine, in one run, and prints one table.
# Usage: bench/run.sh [NAME...] [--json FILE] [--force] [--quick] [--check] [--all] [--threads N] [--list] [--no-build]
#
#   NAME        works whose names begin so (`mixture vit_ti`); all usual ones if none is given. --list shows the names
#   --json FILE the rows as a list of {name, ours, peer, peer_name, unit, ratio, aim, ...}, written anew after each work
#   --force     measure although others use the CPU; otherwise a busy machine is refused
#   --quick     two rounds of next to nothing: tries the benchmarks out, the figures mean nothing
#   --check     time nothing; compare what ours and the peers compute from the same weights and inputs
#   --all       also the sizes left out otherwise (the full grid of mixture layers takes hours)
#   --threads N CPU threads of every contender; all cores if not given
#   --no-build  measure what lies in build/release
#
# Builds build/release with -DSTOA_BENCH=ON, and fetches what the peers need beside torch (torch.compile's dependencies,
# Pillow, OpenCV: bench/peers/requirements.txt) by pip into .deps/bench, once; STOA_PIP_INDEX names another index. The peers
# run on the very LibTorch that Stoa is built with, from Python.
# How it measures, what is timed and what the columns mean: docs/performance.md.
# Exit code: 0 measured (aims missed or not), 1 something failed, 2 refused or used wrongly.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
driver=$root/bench/run.py
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "bench: python3 is not here; the peers and this driver need it: install python3" >&2; exit 2; }

build=yes
options=()
for option in "$@"; do
  if [ "$option" = --no-build ]; then build=; else options+=("$option"); fi
done
case " $* " in *" --list "* | *" --help "* | *" -h "*) exec "$python" "$driver" "${options[@]}" ;; esac

if [ -n "$build" ]; then
  "$python" "$driver" --quiet-only "${options[@]}"  # a busy machine is refused before the build, which makes it busy
  "$root/scripts/setup.sh" >&2
  grep -qs '^STOA_BENCH:BOOL=ON' "$root/build/release/CMakeCache.txt" ||
    output=$(cd "$root" && cmake --preset release -DSTOA_BENCH=ON 2>&1) || { echo "$output" >&2; exit 1; }
  "$root/scripts/build.sh" release stoa_bench_workers stoa_program >&2
fi
[ -x "$root/build/release/bench/bench_model" ] || { echo "bench: nothing is built in build/release/bench; run without --no-build" >&2; exit 2; }

packages=$root/.deps/bench
if ! cmp -s "$root/bench/peers/requirements.txt" "$packages/requirements.txt"; then
  echo "bench: fetching the peers' packages into .deps/bench" >&2
  rm -rf "$packages"
  mkdir -p "$packages"
  if "$python" -m pip install --no-cache-dir --disable-pip-version-check --no-input --no-deps --only-binary=:all: --target "$packages" \
    ${STOA_PIP_INDEX:+--index-url "$STOA_PIP_INDEX"} -r "$root/bench/peers/requirements.txt" >"$packages.log" 2>&1; then
    cp "$root/bench/peers/requirements.txt" "$packages/"
  else
    echo "bench: pip could not fetch them: $(grep '^ERROR' "$packages.log" | tail -n 1) (all of its output: .deps/bench.log)" >&2
  fi
fi
exec "$python" "$driver" "${options[@]}"
