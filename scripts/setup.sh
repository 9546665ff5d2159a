#!/usr/bin/env bash
# Makes this machine ready to build Stoa: packages by apt (Debian 12, Ubuntu 24.04 and newer), LibTorch by pip into .deps/.
# Installs only what is missing; once complete it says so and does nothing. Leaves nothing outside .deps/ but apt's packages.
# Usage: scripts/setup.sh      Exit code: 0 complete, 2 packages are missing and may not be installed here, 1 anything else.
#
#   CMAKE_PREFIX_PATH, Torch_DIR   a LibTorch (2.11 or newer) of your own; then none is fetched
#   CXX              the compiler, g++ 12 or clang 14 or newer
#   STOA_PIP_INDEX   the pip index to take LibTorch from
#   STOA_TORCH       the version asked of it. The default, 2.13.0+cpu, is about 200 MB; 2.13.0 takes the index's own build,
#                    usually the CUDA one of several GB, which needs the CUDA toolkit to compile against
#   STOA_DISK_MB     free disk that is asked for before LibTorch is fetched (4000)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps
log=$deps/setup.log  # output of the last apt or pip step
torch=${STOA_TORCH:-2.13.0+cpu}
did_something=

say() { echo "set-up: $*"; }
fail() { echo "set-up: $*" >&2; exit "${code:-1}"; }
has() { command -v "$1" >/dev/null 2>&1; }
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }  # NEEDED FOUND

# --- packages -------------------------------------------------------------------------------------------------------

missing_packages() {
  local item
  for item in g++:${CXX:+true} cmake: ninja-build:ninja git: "$@"; do
    local command=${item#*:}
    has "${command:-${item%%:*}}" || echo "${item%%:*}"
  done
  for item in libgtest-dev libtomlplusplus-dev nlohmann-json3-dev libcli11-dev libfmt-dev libjpeg-dev libpng-dev zlib1g-dev libzstd-dev libhwy-dev libutf8proc-dev libsentencepiece-dev; do
    dpkg-query -W -f='${db:Status-Status}\n' "$item" 2>/dev/null | grep -qx installed || echo "$item"
  done
}

install_packages() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if has sudo && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      code=2 fail "packages are missing and this user may not install them; run: sudo apt-get update && sudo apt-get install -y $*"
    fi
  fi
  say "apt-get install $*"
  "${as_root[@]}" apt-get update >"$log" 2>&1 </dev/null || true  # one broken source does not matter if the packages are found
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null ||
    fail "apt-get could not install $*: $(grep '^E:' "$log" | tail -n 1) (all of its output: .deps/setup.log)"
  did_something=yes
}

# Packages a build needs; ccache and lld make it faster and come along where packages may be installed at all.
ensure_packages() {
  if ! has dpkg-query; then
    say "not Debian or Ubuntu: see to g++, cmake, ninja, GoogleTest, toml++, nlohmann-json, CLI11, fmt, libjpeg, libpng, zlib, Highway, utf8proc, SentencePiece yourself"
    return
  fi
  local missing
  missing=$(missing_packages "$@")
  if [ "$(id -u)" = 0 ]; then
    has ccache || missing+=" ccache"
    has ld.lld || missing+=" lld"
  fi
  # shellcheck disable=SC2086
  if [ -n "${missing// /}" ]; then install_packages $missing; fi
}

check_tools() {
  local macros gnu clang
  # shellcheck disable=SC2086
  macros=$(${CXX:-c++} -dM -E -x c++ /dev/null 2>/dev/null) || fail "the compiler '${CXX:-c++}' does not run; set CXX to g++ 12 or clang 14 or newer"
  gnu=$(sed -n 's/^#define __GNUC__ //p' <<<"$macros")
  clang=$(sed -n 's/^#define __clang_major__ //p' <<<"$macros")
  if [ -n "$clang" ]; then
    [ "$clang" -ge 14 ] || fail "the compiler '${CXX:-c++}' is clang $clang; Stoa needs clang 14 or g++ 12 or newer: install one and name it, e.g. CXX=clang++-14"
  else
    [ "${gnu:-0}" -ge 12 ] || fail "the compiler '${CXX:-c++}' is g++ ${gnu:-of unknown version}; Stoa needs g++ 12 or clang 14 or newer: install one and name it, e.g. CXX=g++-12"
  fi
  local cmake
  cmake=$(cmake --version | sed -n '1s/[^0-9]*//p')
  at_least 3.25 "$cmake" || fail "cmake is version $cmake; Stoa needs 3.25 or newer (pip install cmake has one)"
}

# --- LibTorch -------------------------------------------------------------------------------------------------------

# Can the LibTorch whose CMake files are in folder $1 be built against?
usable_torch() {
  local version
  version=$(sed -n 's/^set(PACKAGE_VERSION "\([0-9.]*\).*/\1/p' "$1/TorchConfigVersion.cmake" 2>/dev/null) || return 1
  at_least 2.11 "${version:-0}" && { [ ! -e "$1/../../../lib/libtorch_cuda.so" ] || has nvcc; }
}

# True where a LibTorch is there, looked for where CMake will look.
torch_is_there() {
  local folder found prefixes
  IFS=: read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for folder in "${Torch_DIR:-}" "${prefixes[@]/%//share/cmake/Torch}" "${prefixes[@]/%//Torch}"; do
    [ -e "$folder/TorchConfig.cmake" ] || continue
    usable_torch "$folder" || fail "the LibTorch in $folder is older than 2.11, or a CUDA build where no CUDA toolkit (nvcc) is; name another by CMAKE_PREFIX_PATH or none"
    return 0
  done
  [ ! -e "$deps/python/torch/share/cmake/Torch/TorchConfig.cmake" ] || return 0
  has python3 || return 1
  found=$(python3 -c 'import importlib.util as i; print(i.find_spec("torch").submodule_search_locations[0])' 2>/dev/null) || return 1
  usable_torch "$found/share/cmake/Torch"
}

pip_install() {  # TARGET_FOLDER ARGUMENTS...: nothing is written outside the folder and .deps/tmp
  TMPDIR=$deps/tmp python3 -m pip install --no-cache-dir --disable-pip-version-check --no-input \
    --only-binary=:all: --target "$1" ${STOA_PIP_INDEX:+--index-url "$STOA_PIP_INDEX"} "${@:2}" >"$log" 2>&1
}

pip_failed() {  # WHAT
  local reason
  if grep -q 'No space left on device' "$log"; then
    reason="the disk is full"
  elif grep -q 'from versions: none' "$log"; then
    reason="no pip index that answers has it for $(python3 --version) (network? proxy? another index: STOA_PIP_INDEX)"
  else
    reason=$(grep '^ERROR' "$log" | tail -n 1) || reason=$(tail -n 1 "$log")
  fi
  fail "pip could not fetch $1: $reason; all of its output: .deps/setup.log"
}

# The CPU build where the index has it; otherwise the index's own build, if that can be compiled against here: a CUDA build's
# CMake package stops without a CUDA toolkit, and a gigabyte fetched for that would be wasted.
install_torch() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$(python3 --version) is too old: LibTorch's wheels need Python 3.10 or newer"
  local free version options new=$deps/tmp/python report=$deps/tmp/report.json
  free=$(df -Pm "$deps" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "${STOA_DISK_MB:-4000}" ] || fail "only $free MB are free in $deps; LibTorch and a build need ${STOA_DISK_MB:-4000} MB"
  for version in "$torch" "${torch%+cpu}"; do
    options=(--no-deps)  # Python's own use of torch needs more packages; C++ does not
    if [[ $version != *+cpu ]]; then
      pip_install "$new" --no-deps --dry-run --report "$report" "torch==$version" || pip_failed "torch $version"
      if grep -qE '"(nvidia|cuda)-' "$report"; then
        has nvcc || fail "this pip index has torch $version only as a CUDA build, and no CUDA toolkit (nvcc) is here; name PyTorch's own index of CPU builds by STOA_PIP_INDEX, or an unpacked CPU LibTorch by CMAKE_PREFIX_PATH"
        options=()  # its CUDA libraries are packages of their own
      fi
    fi
    say "fetching LibTorch $version into .deps/ (a few minutes)"
    if pip_install "$new" "${options[@]}" "torch==$version"; then
      rm -rf "$deps/python"
      mv "$new" "$deps/python"  # whole or not at all
      did_something=yes
      return
    fi
    [[ $version == *+cpu ]] && grep -q 'No matching distribution' "$log" && ! grep -q 'from versions: none' "$log" || pip_failed "torch $version"
  done
}

# numpy and safetensors, with which one test reads our checkpoints as Python users do; that test is skipped without them.
install_test_packages() {
  local new=$deps/tmp/extras
  if pip_install "$new" --no-deps numpy safetensors; then
    mkdir -p "$deps/python"
    rm -rf "$new/bin" "$deps"/python/{numpy,safetensors}*
    mv "$new"/numpy* "$new"/safetensors* "$deps/python/"
  else
    say "numpy and safetensors could not be fetched for Python: one test will be skipped"
  fi
  touch "$deps/test-packages-tried"
  did_something=yes
}

# --- all of it ------------------------------------------------------------------------------------------------------

mkdir -p "$deps" 2>/dev/null && [ -w "$deps" ] || fail "cannot write to $deps"
if has flock; then  # two scripts started at once take turns
  exec 9>"$deps/lock"
  flock -n 9 || { say "waiting for another set-up of this tree"; flock 9; }
fi
trap 'rm -rf "$deps/tmp"' EXIT
trap 'exit 130' INT TERM
rm -rf "$deps/tmp"  # of a set-up that was killed
mkdir "$deps/tmp"

needs=()
if ! torch_is_there; then
  torch_missing=yes needs=(python3: python3-pip:)
  ! python3 -m pip --version >/dev/null 2>&1 || needs=()
fi
ensure_packages "${needs[@]}"
check_tools
[ -z "${torch_missing:-}" ] || install_torch
[ -e "$deps/test-packages-tried" ] || ! python3 -m pip --version >/dev/null 2>&1 || install_test_packages
if [ -n "$did_something" ]; then say "complete"; else say "already complete"; fi
