#!/usr/bin/env bash
# Sets up, builds and runs every fast test. Further arguments go to ctest: scripts/test.sh -R checkpoint
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/build.sh release
scripts/check_layers.sh
# Tests side by side have more threads than cores: spinning at OpenMP's barriers would make them several times slower.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
ctest --test-dir build/release -LE 'slow|cuda' -j2 --output-on-failure "$@"
