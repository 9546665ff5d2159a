#!/usr/bin/env bash
# From a clone to a trained, evaluated, explained model: sets up, builds, trains WideNet and a plain ViT of equal depth and
# width on Fashion-MNIST, evaluates both on the 10,000 test images, predicts a few and draws a report. Finished parts are
# kept, interrupted training goes on.
# Usage: scripts/demo.sh [--data DIR] [--steps N] [--fresh]
#   --data DIR   a folder with the four IDX files of Fashion-MNIST (plain or .gz)
#   --steps N    train this many steps only, for a quick look
#   --fresh      train again
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
runs=runs/demo
data= fresh= set=()

say() { echo "demo: $*"; }
fail() { echo "demo: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

while [ $# -gt 0 ]; do
  case $1 in
    --data | --steps) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --data) data=$(cd "$2" 2>/dev/null && pwd) || fail "there is no folder $2"; shift ;;
    --steps) set=(--set "train.steps=$2") runs=runs/demo-$2; shift ;;
    --fresh) fresh=yes ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
cd "$root"

# --- data -----------------------------------------------------------------------------------------------------------

has_data() { compgen -G "$1/train-images-idx3-ubyte*" >/dev/null && compgen -G "$1/t10k-labels-idx1-ubyte*" >/dev/null; }

# Debian's package of the data, unpacked into .deps/ without being installed
fetch_data() {
  local folder=$root/.deps/data/fashion-mnist new=$root/.deps/data/new log=$root/.deps/data.log as_root=() found
  command -v apt-get >/dev/null || fail "Fashion-MNIST is not here and apt-get is missing; name a folder with its four IDX files: --data DIR"
  rm -rf "$new"
  mkdir -p "$new"
  say "fetching Debian's package dataset-fashion-mnist (31 MB)"
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  if ! (cd "$new" && apt-get download dataset-fashion-mnist) >"$log" 2>&1; then
    "${as_root[@]}" apt-get update >>"$log" 2>&1 || true  # the package lists of a new machine are empty
    (cd "$new" && apt-get download dataset-fashion-mnist) >>"$log" 2>&1 ||
      fail "Fashion-MNIST could not be fetched ($(grep '^E:' "$log" | tail -n 1)); name a folder with its four IDX files: --data DIR"
  fi
  dpkg-deb -x "$new"/dataset-fashion-mnist_*.deb "$new/package" 2>>"$log" || fail "the package could not be unpacked: $(tail -n 1 "$log")"
  found=$(find "$new/package" -name 'train-images-idx3-ubyte*' | head -n 1)
  [ -n "$found" ] || fail "dataset-fashion-mnist holds no train-images-idx3-ubyte; name a folder with the data: --data DIR"
  rm -rf "$folder"
  mv "$(dirname "$found")" "$folder"
  rm -rf "$new"
}

find_data() {
  if [ -n "$data" ]; then
    has_data "$data" || fail "$data has no train-images-idx3-ubyte and t10k-labels-idx1-ubyte (or .gz)"
  elif [ -n "${STOA_DATA:-}" ] && has_data "$STOA_DATA/fashion-mnist"; then
    data=$STOA_DATA/fashion-mnist
  else
    data=$root/.deps/data/fashion-mnist
    has_data "$data" || fetch_data
  fi
  say "data: $data"
}

# --- runs -----------------------------------------------------------------------------------------------------------

stoa() { build/release/stoa "$@"; }

train() {  # NAME RECIPE
  local run=$runs/$1
  [ -z "$fresh" ] || rm -rf "$run"
  if [ -e "$run/evaluation.json" ]; then
    say "$run is trained already (--fresh trains it again)"
  elif compgen -G "$run/checkpoints/step-*" >/dev/null; then
    say "$run was interrupted; going on"
    stoa train --resume "$run" >/dev/null
  else
    rm -rf "$run"
    say "training $2"
    stoa train "$2" --set "data.path=$data" "${set[@]}" --out "$run" >/dev/null
  fi
}

number() { grep -oE "\"$1\": *[-+0-9.e]+" <<<"$2" | head -n 1 | sed 's/.*: *//'; }  # KEY JSON

row() {  # NAME TITLE [OPTIONS OF EVAL...]
  local info result
  info=$(stoa info "$runs/$1" --json)
  result=$(stoa eval "$runs/$1" "${@:3}" --json)
  awk -v name="$2" -v parameters="$(number parameters "$info")" -v macs="$(number macs "$info")" \
    -v accuracy="$(number accuracy "$result")" -v speed="$(number samples_per_second "$result")" \
    -v latency="$(number latency_ms "$result")" \
    'BEGIN { printf "%-10s %10.3f M %10.2f M %10.2f %% %12.0f %12.2f ms\n", name, parameters / 1e6, macs / 1e6, 100 * accuracy, speed, latency }'
}

SECONDS=0
scripts/build.sh release stoa_program  # the tests would take longer than all the rest
find_data
train widenet recipes/wide_net/fashion_mnist.toml
train vit recipes/wide_net/fashion_mnist_vit.toml

say "evaluating on the test images"
rm -rf "$runs/images"
table=$(
  printf '%-10s %12s %12s %12s %12s %15s\n' model parameters MACs accuracy images/s 'one image'
  row widenet WideNet --save-examples "$runs/images" --count 5
  row vit ViT
)
say "WideNet on five test images (the file names end in the right class)"
stoa predict "$runs/widenet" "$runs"/images/*.png
stoa report "$runs/widenet" "$runs/vit" --out "$runs/report.html" >/dev/null
printf '\n%s\n\n' "$table"
say "report: $root/$runs/report.html"
if [ "$(basename "$data")" = fashion-mnist ]; then
  say "to go on by hand (docs/tour.md): export PATH=$root/build/release:\$PATH STOA_DATA=$(dirname "$data")"
else
  say "to go on by hand (docs/tour.md): export PATH=$root/build/release:\$PATH, and --set data.path=$data"
fi
say "done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
