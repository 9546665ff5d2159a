#!/usr/bin/env bash
# Sets up, builds and runs every fast test. Further arguments go to ctest: scripts/test.sh -R checkpoint
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/build.sh release
scripts/check_layers.sh
ctest --test-dir build/release -LE 'slow|cuda' -j2 --output-on-failure "$@"
