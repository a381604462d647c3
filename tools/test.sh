#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests but those of the label "long" (every combination of kind, dtype and shape of the CUDA
# kernels in the emulator: hours). Arguments go to ctest, for instance: tools/test.sh -R model, tools/test.sh -L long
set -euo pipefail
cd "$(dirname "$0")/.."

export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000} # as the program sets it for itself

tools/setup.sh --tests
# Parsers and kernels, and what they stand on, once more under the address and undefined-behaviour sanitizers. They know no LibTorch.
cmake --preset asan >/dev/null
cmake --build build-asan --target test_core test_io test_config test_data test_kernels emulated_tests -- --quiet
# Their threads under the thread sanitizer, and every parser under libFuzzer for 20 seconds.
cmake --preset tsan >/dev/null
cmake --build build-tsan --target test_core test_data test_kernels -- --quiet
cmake --preset fuzz >/dev/null
cmake --build build-fuzz --target fuzz -- --quiet
# With the CUDA kernels where nvcc is: without a GPU they are compiled and linked, and their tests run in the emulator.
cmake --preset cpu -DWITH_CUDA=AUTO -DUVIT_BUILD_TESTS=ON -DUVIT_BUILD_BENCH=ON "-DUVIT_ASAN_BUILD=$PWD/build-asan" \
  "-DUVIT_TSAN_BUILD=$PWD/build-tsan" "-DUVIT_FUZZ_BUILD=$PWD/build-fuzz" >/dev/null
cmake --build build -- --quiet
if (($# == 0)); then
  ctest --test-dir build --output-on-failure -L fuzz -j "$(nproc)" # each takes a core for 20 seconds
  set -- -LE 'long|fuzz'
fi
[[ " $* " == *" -L"* ]] || set -- -LE long "$@"
ctest --test-dir build --output-on-failure "$@"
