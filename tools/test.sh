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
# With the CUDA kernels where nvcc is: without a GPU they are compiled and linked, and their tests run in the emulator.
cmake --preset cpu -DWITH_CUDA=AUTO -DUVIT_BUILD_TESTS=ON -DUVIT_BUILD_BENCH=ON "-DUVIT_ASAN_BUILD=$PWD/build-asan" >/dev/null
cmake --build build -- --quiet
[[ " $* " == *" -L "* ]] || set -- -LE long "$@"
ctest --test-dir build --output-on-failure "$@"
