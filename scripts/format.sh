#!/usr/bin/env bash
# Formats all C++ in place by .clang-format; with --check changes nothing and fails where something would change.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v clang-format >/dev/null || { echo "format: clang-format is missing (apt-get install clang-format)" >&2; exit 2; }
how=(-i)
case ${1:-} in
  '') ;;
  --check) how=(--dry-run -Werror) ;;
  *) echo "usage: scripts/format.sh [--check]" >&2; exit 2 ;;
esac
find src tests bench examples \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' \) -print0 | xargs -0 -r clang-format "${how[@]}"
