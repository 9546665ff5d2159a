#!/usr/bin/env bash
# Trains over networks of this machine's own making: each process in a network namespace of its own, joined by a bridge, with
# added delay and limited bandwidth. Prints what `stoa doctor --distributed` measures, the time of a step, and how far losses are
# from those of one process. Nothing outside the namespaces is touched, and they are gone at the end.
# Usage: bench/network.sh [--processes N] [--steps N] [--batch N] [--text FILE] [--setting DELAY:RATE]... [--program FILE]
#
#   --processes N         2 (default) to 4; --steps N (8) and --batch N (8) of recipes/ring_attention/tutorial.toml
#   --setting DELAY:RATE  milliseconds one way, and what tc takes for a rate, 0 for no limit: `1:100mbit`. Default: 0:0 0:1gbit
#                         0:100mbit 1:0 5:0 1:100mbit
#   --text FILE           what is trained on; a made-up text if none is given
#   --program FILE        build/release/stoa
#
# Needs root, ip and tc (iproute2), and a kernel with namespaces, veth, bridges and tbf. Where it has no netem, delays are made by
# bench/network_delay.py, which needs python3 and /dev/net/tun and takes some of the CPU itself.
# Exit code: 0 measured, 1 something failed or losses differ, 2 used wrongly or not possible here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
processes=2 steps=8 batch=8 text= settings=() program=$root/build/release/stoa
refuse() { echo "network: $*" >&2; exit 2; }
fail() { echo "network: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
  [ $# -gt 1 ] || refuse "$1 needs a value; see --help"
  case $1 in
    --processes) processes=$2 ;;
    --steps) steps=$2 ;;
    --batch) batch=$2 ;;
    --text) text=$(realpath -e "$2") || refuse "no file $2" ;;
    --setting) settings+=("$2") ;;
    --program) program=$(realpath -e "$2") || refuse "no file $2" ;;
    *) refuse "unknown option $1; see --help" ;;
  esac
  shift 2
done
[[ $processes =~ ^[2-4]$ ]] || refuse "--processes is $processes; it must be 2 to 4"
[[ $steps =~ ^[1-9][0-9]*$ && $batch =~ ^[1-9][0-9]*$ ]] || refuse "--steps and --batch must be whole numbers over 0"
[ ${#settings[@]} -gt 0 ] || settings=(0:0 0:1gbit 0:100mbit 1:0 5:0 1:100mbit)
for setting in "${settings[@]}"; do
  [[ $setting =~ ^[0-9]+(\.[0-9]+)?:(0|[0-9]+[kmg]?bit)$ ]] || refuse "--setting is $setting; DELAY:RATE such as 1:100mbit is needed"
done
[ -x "$program" ] || refuse "$program is not there; build it (scripts/build.sh) or name another by --program"
command -v ip >/dev/null && command -v tc >/dev/null || refuse "ip and tc are not here; install iproute2"

work=$(mktemp -d) name=stoa-$$ running=()
switch=$name-switch

end_running() {  # processes of the setting just measured
  local process
  for process in "${running[@]}"; do kill "$process" 2>/dev/null || true; done
  for process in "${running[@]}"; do wait "$process" 2>/dev/null || true; done
  running=()
}
remove_network() {
  local i
  end_running
  for i in $(seq 0 $((processes - 1))); do ip netns del "$name-$i" 2>/dev/null || true; done
  ip netns del "$switch" 2>/dev/null || true
}
trap 'remove_network; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

said=$(ip netns add "$switch" 2>&1) || refuse "this machine does not allow network namespaces (${said##*$'\n'}); run as root, outside containers without CAP_SYS_ADMIN"
inside() { ip netns exec "$@"; }  # NAMESPACE COMMAND...
has_queue() { inside "$switch" tc qdisc add dev lo root "$@" 2>/dev/null && inside "$switch" tc qdisc del dev lo root; }
netem= tbf=
if has_queue netem delay 1ms; then netem=yes; fi
if has_queue tbf rate 1gbit burst 256kb latency 200ms; then tbf=yes; fi
ip netns del "$switch"

# --- one network ----------------------------------------------------------------------------------------------------

# Joins namespace $1 to the switch by a pair of interfaces: eth0 there, port$2 here; $3 is the delay of either way in ms.
join_switch() {
  if [ -n "$netem" ] || [ "$3" = 0 ]; then
    inside "$switch" ip link add "port$2" type veth peer name "end$2" || return 1
  else
    mkfifo "$work/ready$2"
    # half of it where a frame leaves, the other half where it comes in
    ip netns exec "$switch" python3 "$root/bench/network_delay.py" "$(awk "BEGIN { print $3 / 2 }")" "port$2" "end$2" >"$work/ready$2" &
    running+=($!)
    read -r _ <"$work/ready$2" || return 1
    rm "$work/ready$2"
  fi
  inside "$switch" ip link set "end$2" netns "$1"
  inside "$1" ip link set "end$2" name eth0
}

make_network() {  # DELAY RATE
  local delay=$1 rate=$2 i space
  ip netns add "$switch"
  inside "$switch" ip link add bridge type bridge || return 1
  inside "$switch" ip link set bridge up mtu 9000
  for i in $(seq 0 $((processes - 1))); do
    space=$name-$i
    ip netns add "$space"
    join_switch "$space" "$i" "$delay" || return 1
    inside "$switch" ip link set "port$i" mtu 9000 master bridge up
    inside "$space" ip link set lo up
    inside "$space" ip addr add "10.77.0.$((i + 1))/24" dev eth0
    inside "$space" ip link set eth0 mtu 9000 up
    if [ -n "$netem" ] && [ "$delay" != 0 ]; then
      inside "$space" tc qdisc add dev eth0 root handle 1: netem delay "${delay}ms" limit 100000 || return 1
      [ "$rate" = 0 ] || inside "$space" tc qdisc add dev eth0 parent 1:1 tbf rate "$rate" burst 256kb latency 200ms || return 1
    elif [ "$rate" != 0 ]; then
      inside "$space" tc qdisc add dev eth0 root tbf rate "$rate" burst 256kb latency 200ms || return 1
    fi
  done
}

# The same command of stoa as every rank, each in its namespace as on a machine of its own. Output of rank 0 in $work/out.
run_ranks() {
  local i ranks=() failed=0
  for i in $(seq 0 $((processes - 1))); do
    inside "$name-$i" env RANK="$i" WORLD_SIZE="$processes" LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=10.77.0.1 MASTER_PORT=29500 \
      OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive "$program" "$@" >"$work/out.$i" 2>"$work/err.$i" &
    ranks+=($!)
  done
  for i in "${ranks[@]}"; do wait "$i" || failed=1; done
  mv "$work/out.0" "$work/out"
  [ $failed = 0 ] || { cat "$work"/err.* >&2; return 1; }
}

# --- what is measured -----------------------------------------------------------------------------------------------

made_up() {  # LINES
  awk -v lines="$1" 'BEGIN { srand(7); while (lines-- > 0) { for (j = 0; j < 12; ++j) printf "%s%d ", substr("cornwindtreeriver", 1 + int(rand() * 12), 4), rand() * 97; print "end." } }'
}
made_up 40 >"$work/eval.txt"  # what ends a run is not of interest
if [ -z "$text" ]; then
  text=$work/text.txt
  made_up 4000 >"$text"
fi
train=(train "$root/recipes/ring_attention/tutorial.toml" -q --set "data.train=[\"$text\"]" --set "data.eval=[\"$work/eval.txt\"]"
  --set 'data.tokenizer="bytes"' --set train.eval_batch_size=8 --set "train.steps=$steps" --set "train.batch_size=$batch"
  --set train.log_every=1 --set train.eval_every=0 --set checkpoint.every=0 --set runtime.threads=1 --set 'runtime.precision="fp32"')
losses_of() { sed -n 's/.*"kind":"train".*/&/p' "$1/metrics.jsonl" | sed 's/.*"loss":\([-0-9.e+]*\).*/\1/'; }
median_step_ms() {  # the first two warm up
  sed -n '/"kind":"train"/s/.*"samples_per_second":\([-0-9.e+]*\).*/\1/p' "$1/metrics.jsonl" | tail -n +3 | sort -g |
    awk -v batch="$batch" '{ speed[NR] = $1 } END { if (NR) printf "%.0f", 1000 * batch / speed[int((NR + 1) / 2)] }'
}
from_doctor() { grep -o "\"$1\": *[-0-9.e+]*" "$work/out" | head -n 1 | cut -d: -f2; }  # of the first group, all ranks
largest_difference() { paste <(losses_of "$work/alone") <(losses_of "$1") | awk '{ d = ($1 - $2) / $1; if (d < 0) d = -d; if (d > most) most = d; if (NF != 2) most = 1 } END { printf "%.1e", NR ? most : 1 }'; }
failed=
differs() { awk "BEGIN { exit !($1 > 1e-6) }"; }

echo "$processes processes of a thread each in network namespaces, $(env -u OMP_NUM_THREADS nproc) CPUs, load average $(cut -d' ' -f1 /proc/loadavg) before; frames of 9000 bytes"
[ -n "$netem" ] || echo "this kernel has no netem: delays are made by bench/network_delay.py, which limits bandwidth too"
OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive "$program" "${train[@]}" --out "$work/alone" >/dev/null
echo "one process: $(median_step_ms "$work/alone") ms a step of $batch x 128 tokens"
echo
row='%-22s %10s %12s %12s   %9s %12s %16s\n'
# shellcheck disable=SC2059
printf "$row" "delay, bandwidth" "latency us" "next GB/s" "reduce GB/s" split "step ms" "loss off by"
for setting in "${settings[@]}"; do
  delay=${setting%%:*} rate=${setting#*:}
  label="$([ "$delay" = 0 ] && echo none || echo "$delay ms"), $([ "$rate" = 0 ] && echo unlimited || echo "$rate")"
  if [ "$rate" != 0 ] && [ -z "$tbf" ]; then echo "$label: left out, this kernel has no tbf"; continue; fi
  if [ "$delay" != 0 ] && [ -z "$netem" ] && { [ ! -w /dev/net/tun ] || ! command -v python3 >/dev/null; }; then
    echo "$label: left out, this kernel has no netem, and there is no /dev/net/tun or no python3"
    continue
  fi
  make_network "$delay" "$rate" || fail "the network of $setting could not be made"
  run_ranks doctor --distributed --json -q || fail "doctor failed at $setting"
  measured="$(from_doctor latency_us | xargs printf %.0f) $(from_doctor exchange_gb_per_s | xargs printf %.3f) $(from_doctor all_reduce_gb_per_s | xargs printf %.3f)"
  for split in data sequence; do
    run=$work/$setting-$split
    run_ranks "${train[@]}" --out "$run" --set "parallel.$split=$processes" || fail "training failed at $setting, parallel.$split=$processes"
    off=$(largest_difference "$run")
    if differs "$off"; then failed=yes; fi
    # shellcheck disable=SC2059,SC2086
    printf "$row" "$label" $measured "$split" "$(median_step_ms "$run")" "$off"
  done
  remove_network
done
[ -z "$failed" ] || fail "losses differ from those of one process by more than 1e-6"
