#!/usr/bin/env bash
# Builds the libFuzzer targets (clang) and runs each, starting from small valid files.
# Usage: scripts/fuzz.sh [SECONDS [TARGET...]]   default: 60 seconds each of idx cifar tar tfrecord image safetensors recipe
# click_text click_rows token_index tsv wordpiece bpe tokenizer_json
# What it finds is left in build/fuzz/findings/; the exit code is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(idx cifar tar tfrecord image safetensors recipe click_text click_rows token_index tsv
  wordpiece bpe tokenizer_json)

command -v clang++ >/dev/null || { echo "fuzz.sh: clang++ was not found; install clang (Debian and Ubuntu: apt install clang)" >&2; exit 1; }
cmake --preset fuzz >/dev/null  # says what is missing
cmake --build --preset fuzz

build=build/fuzz
mkdir -p $build/findings
$build/tests/fuzz/make_corpus $build/corpus

failed=()
for target in "${targets[@]}"; do
  echo "== $target: $seconds seconds"
  $build/tests/fuzz/"${target}_fuzz" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=16384 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="$build/findings/$target-" "$build/corpus/$target" || failed+=("$target")
done

if [[ ${#failed[@]} -gt 0 ]]; then
  echo "fuzz.sh: findings in ${failed[*]}; the inputs are in $build/findings/" >&2
  exit 1
fi
echo "fuzz.sh: no findings"
