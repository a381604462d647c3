#!/usr/bin/env bash
# Fuzzes one parser: run.sh PROGRAM SEEDS SECONDS [CORPUS]. FUZZ_SEED (1) begins another walk: the tests take always the same one.
# SEEDS is read only; new inputs go to CORPUS (default: a folder that is removed). Inputs that fail are left in the working folder as crash-*, and belong into
# SEEDS once the parser is mended.
set -euo pipefail
program=$1 seeds=$2 seconds=$3 corpus=${4:-}
if [ -z "$corpus" ]; then
  corpus=$(mktemp -d)
  trap 'rm -rf "$corpus"' EXIT
fi
# A hostile size must not take memory that the file cannot fill, and nothing small may take long, on a busy machine either.
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=0:detect_leaks=1} UBSAN_OPTIONS=print_stacktrace=1
"$program" -seed="${FUZZ_SEED:-1}" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=1536 -malloc_limit_mb=512 -max_len=65536 -print_final_stats=1 -verbosity=0 "$corpus" "$seeds"
