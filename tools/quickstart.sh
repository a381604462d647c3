#!/usr/bin/env bash
# From nothing to two trained models: installs, builds, trains a softmax U-ViT and a Cog U-ViC on Fashion-MNIST (same seed, data order, noise and
# steps), samples a class-conditional grid from each, scores both and prints the table.
#   tools/quickstart.sh [--out DIR] [--set section.key=value ...] [--images N]
# --set goes to both trainings; --images is how many samples the Frechet distance is taken over (default 2000).
set -euo pipefail
invoked_from=$PWD
cd "$(dirname "$0")/.."

usage() { echo "usage: tools/quickstart.sh [--out DIR] [--set section.key=value ...] [--images N]" >&2; exit 2; }
out="" images=() sets=()
while (($#)); do
  (($# >= 2)) || usage
  case "$1" in
    --out) out=$2; [[ $out = /* ]] || out=$invoked_from/$out ;;
    --set) sets+=(--set "$2") ;;
    --images) images=(-n "$2") ;;
    *) usage ;;
  esac
  shift 2
done
if [ -z "$out" ]; then # a new folder each time: nothing of an earlier run is touched
  out=runs/quickstart
  for ((n = 2; ; ++n)); do [ -e "$out" ] || break; out=runs/quickstart-$n; done
fi

tools/setup.sh
if [ ! -e build/build.ninja ]; then
  echo "quickstart: configuring"
  cmake --preset cpu -DUVIT_BUILD_TESTS=OFF -DUVIT_BUILD_BENCH=OFF >/dev/null
fi
echo "quickstart: building uvit"
cmake --build build --target uvit -- --quiet

# The configurations ask for bf16, which a CPU without such instructions emulates: there fp32 is faster.
if ! grep -qm1 -E 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
  echo "quickstart: this CPU has no bf16 instructions: precision = fp32"
  sets=(--set train.precision=fp32 --set sample.precision=fp32 "${sets[@]}")
fi
for model in uvit uvic; do
  echo "quickstart: training $model"
  build/uvit train "configs/fashion_mnist/$model.toml" --out "$out/$model" "${sets[@]}"
done
for model in uvit uvic; do
  echo "quickstart: sampling and scoring $model"
  build/uvit sample "$out/$model" --out "$out/$model.png"
  build/uvit evaluate "$out/$model" "${images[@]}"
done
echo
for model in uvit uvic; do echo "grid of $model: $out/$model.png"; done
build/uvit report "$out/uvit" "$out/uvic"
