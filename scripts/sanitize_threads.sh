#!/usr/bin/env bash
# Builds the tests with threads of our own under the thread sanitizer and runs them: loading, progress, child processes, and the
# exchange between processes. Arguments go to ctest.
# LibTorch and OpenMP are not built with it, hence tests/support/thread_sanitizer.supp, and one OpenMP thread a process: what runs
# inside parallel loops is not looked at.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tests=(data_loader dist_world_dist dist_group_dist dist_gradient_buckets_dist dist_sequence_methods_dist)
scripts/build.sh tsan "${tests[@]/#/test_}"
export TSAN_OPTIONS=suppressions=$PWD/tests/support/thread_sanitizer.supp:report_mutex_bugs=0:detect_deadlocks=0${TSAN_OPTIONS:+:$TSAN_OPTIONS}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
ctest --test-dir build/tsan -R '^(data\.loader|dist\.(world|group|gradient_buckets|sequence\.methods)_dist)$' --output-on-failure "$@"
