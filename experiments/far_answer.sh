#!/usr/bin/env bash
# Documents whose last letter is that of their first half, with dots between: what a process that may hold 64 tokens learns of them,
# and what two such processes learn that split a document (parallel.sequence = 2). Minutes. In experiments/ring_attention.md.
# Usage: experiments/far_answer.sh [--steps N] [--out DIR] [--program FILE]
#
#   --steps N       600; --out DIR: runs/far_answer, where a run is that is there already
#   --program FILE  build/release/stoa
#
# Exit code: 0 both trained, 1 something failed, 2 used wrongly.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
steps=600 out=$root/runs/far_answer program=$root/build/release/stoa
refuse() { echo "far_answer: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
  case $1 in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
  [ $# -gt 1 ] || refuse "$1 needs a value; see --help"
  case $1 in
    --steps) steps=$2 ;;
    --out) out=$2 ;;
    --program) program=$(realpath -e "$2") || refuse "no file $2" ;;
    *) refuse "unknown option $1; see --help" ;;
  esac
  shift 2
done
[[ $steps =~ ^[1-9][0-9]*$ ]] || refuse "--steps must be a whole number over 0"
[ -x "$program" ] || refuse "$program is not there; build it (scripts/build.sh) or name another by --program"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
mkdir -p "$out"

letters=abcdefghijklmnop
times() { printf "%$2s" '' | tr ' ' "$1"; }
documents() {  # SEED COUNT: 62 letters, 61 dots, the letter
  awk -v seed="$1" -v count="$2" -v letters=$letters -v dots="$(times . 61)" 'BEGIN {
    srand(seed)
    while (count-- > 0) { c = substr(letters, 1 + int(rand() * 16), 1); run = dots "."; gsub(/\./, c, run); printf "%s%s%s\n\n", run, dots, c }
  }'
}
documents 1 8192 >"$out/train.txt"
documents 2 512 >"$out/eval.txt"

keys=("data.train=[\"$(realpath "$out")/train.txt\"]" "data.eval=[\"$(realpath "$out")/eval.txt\"]" 'data.sentences="lines"' 'data.tokenizer="bytes"'
  'data.masking.rule="token"' data.short_share=0 model.positions=126 model.vocabulary=0 model.dim=64 model.depth=2 model.heads=4
  model.mlp_dim=256 model.dropout=0 model.attention_dropout=0 train.batch_size=16 "train.steps=$steps" train.eval_every=0
  checkpoint.every=0 optimizer.lr=1e-3 train.clip_norm=1 schedule.warmup=50 'runtime.precision="fp32"')

train() {  # NAME PROCESSES KEY...
  local name=$1 processes=$2 start=("$program" train) set=() key
  shift 2
  if [ "$processes" -gt 1 ]; then start=("$program" launch -q -n "$processes" -- train); fi
  for key in "${keys[@]}" "$@"; do set+=(--set "$key"); done
  if ! "${start[@]}" "$root/recipes/ring_attention/tutorial.toml" -q "${set[@]}" --out "$out/$name" --or-resume >"$out/$name.log" 2>&1; then
    cat "$out/$name.log" >&2
    exit 1
  fi
}
report() {  # NAME WHAT LETTERS-IN-SIGHT
  local right=0 i letter answer loss accuracy
  for i in $(seq 0 15); do
    letter=${letters:i:1}
    answer=$("$program" predict -q "$out/$1" "$(times "$letter" "$3")$(times . 61)[MASK]")
    if [ "${answer: -1}" = "$letter" ]; then right=$((right + 1)); fi
  done
  loss=$(sed -n 's/.*"kind":"eval","loss":\([-0-9.e+]*\).*/\1/p' "$out/$1/metrics.jsonl" | tail -n 1)
  accuracy=$(sed -n 's/.*"kind":"eval".*"accuracy":\([-0-9.e+]*\).*/\1/p' "$out/$1/metrics.jsonl" | tail -n 1)
  printf '| %s | %.4f | %.2f | %d of 16 |\n' "$2" "$loss" "$(awk "BEGIN { print 100 * $accuracy }")" "$right"
}

train alone 1 data.length=64
train two 2 data.length=126 parallel.sequence=2
printf '| | loss | right %% | last letters right |\n|---|---:|---:|---:|\n'
report alone "one process, 64 tokens" 0
report two "two processes, 63 tokens each" 62
