#!/usr/bin/env bash
# Installs the build tree $1 into a folder of its own, builds the example in folder $2 against it with compiler $3, and runs
# it and the installed program. Fails where the example did not learn.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$1" --prefix "$work/stoa" >/dev/null
cmake -S "$2" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$3" -DCMAKE_PREFIX_PATH="$work/stoa"
cmake --build "$work/build"

output=$("$work/build/$(basename "$2")")
echo "$output"
awk '/explained variance/ { found = 1; if ($3 + 0 < 0.9) exit 1 } END { exit !found }' <<<"$output"
"$work/stoa/bin/stoa" --help >/dev/null
