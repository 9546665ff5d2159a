#!/usr/bin/env bash
# Trains the tutorial's BERT on sequences of tiny Shakespeare, whole and split over processes, without and with dropout, and
# prints how far losses and norms of the gradients are from those of one process. The page is experiments/ring_attention.md.
# Usage: experiments/ring_attention.sh [--steps N] [--length N] [--batch N] [--out DIR] [--program FILE] [--fault FILE]
#
#   --steps N       200; --length N (1024) bytes of a sequence, a multiple of 8; --batch N (2) sequences, an even number
#   --out DIR       runs/ring_attention: what is there already is not trained again
#   --program FILE  build/release/stoa
#   --fault FILE    build/release/bench/bench_gradient_fault (target stoa_benchmarks): the same with the gradients of the
#                   first published program for four processes, if it is there
#
# One thread a process, fp32, seed 0. $STOA_DATA names the folder with text/tinyshakespeare.txt.gz.
# Exit code: 0 all within 1e-4 in the first 100 steps, 1 something failed or is further off, 2 used wrongly.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
steps=200 length=1024 batch=2 out=$root/runs/ring_attention program=$root/build/release/stoa fault=$root/build/release/bench/bench_gradient_fault
refuse() { echo "ring_attention: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
  case $1 in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
  [ $# -gt 1 ] || refuse "$1 needs a value; see --help"
  case $1 in
    --steps) steps=$2 ;;
    --length) length=$2 ;;
    --batch) batch=$2 ;;
    --out) out=$2 ;;
    --program) program=$(realpath -e "$2") || refuse "no file $2" ;;
    --fault) fault=$(realpath -e "$2") || refuse "no file $2" ;;
    *) refuse "unknown option $1; see --help" ;;
  esac
  shift 2
done
[[ $steps =~ ^[1-9][0-9]*$ && $length =~ ^[1-9][0-9]*$ && $batch =~ ^[1-9][0-9]*$ ]] ||
  refuse "--steps, --length and --batch must be whole numbers over 0"
[ $((length % 8)) = 0 ] || refuse "--length is $length; a multiple of 8 is needed"
[ $((batch % 2)) = 0 ] || refuse "--batch is $batch; an even number is needed, for two replicas"
[ -x "$program" ] || refuse "$program is not there; build it (scripts/build.sh) or name another by --program"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
mkdir -p "$out"

recipe=$root/recipes/ring_attention/tutorial.toml
keys=('data.train=["text/tinyshakespeare.txt.gz"]' 'data.eval=[]' 'data.sentences="whole"' 'data.tokenizer="bytes"' "data.length=$length"
  "model.positions=$length" model.vocabulary=0 "train.batch_size=$batch" train.eval_batch_size=2 "train.steps=$steps" train.log_every=1
  train.eval_every=0 checkpoint.every=0 optimizer.lr=1e-3 schedule.end=1e-4 runtime.threads=1 'runtime.precision="fp32"')

# Trains NAME with PROCESSES and more KEYS, unless it is there.
train() {
  local name=$1 processes=$2 start=("$program" train) set=() key
  shift 2
  if [ "$processes" -gt 1 ]; then start=("$program" launch -q -n "$processes" -- train); fi
  for key in "${keys[@]}" "$@"; do set+=(--set "$key"); done
  if ! "${start[@]}" "$recipe" -q "${set[@]}" --out "$out/$name" --or-resume >"$out/$name.log" 2>&1; then
    cat "$out/$name.log" >&2
    exit 1
  fi
}
# The same with wrong gradients; what it says of them in $out/NAME.log
train_wrong() {
  local name=$1
  shift
  [ ! -s "$out/$name/evaluation.json" ] || return 0
  rm -rf "${out:?}/$name"
  if ! "$fault" "$recipe" 4 "$out/$name" "${keys[@]}" "$@" >"$out/$name.log" 2>"$out/$name.err"; then
    cat "$out/$name.err" >&2
    exit 1
  fi
}
numbers() { sed -n "s/.*\"kind\":\"$2\".*\"$3\":\([-0-9.e+]*\).*/\1/p" "$out/$1/metrics.jsonl"; }
# The largest difference of A's and B's KEY in the first LINES lines; relative for "ratio"
difference() {
  paste <(numbers "$1" train "$3") <(numbers "$2" train "$3") | awk -v lines="$4" -v how="$5" '
    NF != 2 { wrong = 1 }
    NR <= lines { d = $1 - $2; if (how == "ratio") d /= $1; if (d < 0) d = -d; if (d > most) most = d }
    END { if (wrong || NR == 0) exit 1; printf "%.1e", most }'
}
last_mean() { numbers "$1" train loss | tail -n 20 | awk '{ sum += $1 } END { printf "%.5f", sum / NR }'; }

far= splits=("ring2 2 sequence=2" "ring4 4 sequence=4" "data2_ring2 4 data=2 sequence=2" 'rsa4 4 sequence=4 attention="rsa"')
# shellcheck disable=SC2016
row='| %s | %s | %s | %s | %s | %s | %s |\n'
# shellcheck disable=SC2059
print_row() { printf "$row" "$@"; }
compare() {  # DROPOUT NAME WHAT
  local whole=alone-$1 early=- all=- norm=-
  if [ "$2" != "$whole" ]; then
    early=$(difference "$whole" "$2" loss 100 absolute)
    all=$(difference "$whole" "$2" loss "$steps" absolute)
    norm=$(difference "$whole" "$2" gradient_norm "$steps" ratio)
    [[ $2 = wrong* ]] || ! awk "BEGIN { exit !($early > 1e-4) }" || far=yes
  fi
  print_row "$1" "$3" "$early" "$all" "$norm" "$(last_mean "$2")" "$(numbers "$2" eval loss | tail -n 1 | awk '{ printf "%.5f", $1 }')"
}
print_row dropout split "loss, first 100 steps" "loss, all $steps" "gradient norm, all" "mean loss of the last 20" "loss on other text"
print_row --- --- ---: ---: ---: ---: ---:
for dropout in 0.0 0.1; do
  drop=("model.dropout=$dropout" "model.attention_dropout=$dropout")
  train "alone-$dropout" 1 "${drop[@]}"
  compare "$dropout" "alone-$dropout" "one process"
  for split in "${splits[@]}"; do
    read -r name processes parallel <<<"$split"
    split=() said=
    for key in $parallel; do split+=("parallel.$key") said+="${said:+, }\`$key\`"; done
    train "$name-$dropout" "$processes" "${drop[@]}" "${split[@]}"
    compare "$dropout" "$name-$dropout" "$said"
  done
  [ -x "$fault" ] || continue
  train_wrong "wrong4-$dropout" "${drop[@]}"
  compare "$dropout" "wrong4-$dropout" "wrong gradients, N = 4"
done
if [ -x "$fault" ]; then
  printf '\nWrong gradients, N = 4, first step without dropout\n\n'
  cat "$out/wrong4-0.0.log"
fi
[ -z "$far" ] || { echo "ring_attention: losses differ by more than 1e-4 in the first 100 steps" >&2; exit 1; }
