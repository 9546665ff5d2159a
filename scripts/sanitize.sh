#!/usr/bin/env bash
# Builds with address and undefined-behaviour sanitizers and runs every fast test under them, leaks included; LibTorch needs
# no suppressions. Arguments go to ctest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/build.sh asan
# a test that asks for TiB of memory expects to be refused, not to be ended
export ASAN_OPTIONS=allocator_may_return_null=1:strict_string_checks=1:detect_stack_use_after_return=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}
export UBSAN_OPTIONS=print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
# Tests side by side have more threads than cores: spinning at OpenMP's barriers would make them several times slower.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
ctest --test-dir build/asan -LE 'slow|cuda' -j2 --output-on-failure "$@"
