#!/usr/bin/env bash
# install.sh BUILD CMAKE PROJECT: installs a build into a scratch folder, and builds and runs a project that finds it there.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$2" --install "$1" --prefix "$scratch/prefix" >/dev/null
"$2" -S "$3" -B "$scratch/build" -DCMAKE_PREFIX_PATH="$scratch/prefix" >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
"$2" --build "$scratch/build" >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
"$scratch/build/kernels"
"$scratch/build/operator"
