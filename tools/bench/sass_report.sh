#!/usr/bin/env bash
# What the compiler made of the CUDA kernels: registers, spills, shared memory, blocks a multiprocessor, tensor-core instructions of the main loop
# against the fewest that its tile's products need, their share of the issue slots, the bounds of an iteration, and per shape (B, H, L, D) the time
# that the roofline of an A100 and an H200 gives and the one that this code could reach. No GPU is needed. Exit 1 where a kernel spills or wastes
# tensor-core instructions.
#   tools/bench/sass_report.sh [--arch 80,90,100] [--only forward_cog_bf16_64]    compiles kernels/**/*.cu (those whose name holds the text)
#   tools/bench/sass_report.sh [--quiet] LIBRARY                                  reads a library that is built already
set -euo pipefail
cd "$(dirname "$0")/../.."

archs=80,90 only="" quiet=() binaries=()
while (($#)); do
  case "$1" in
    --arch) archs=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --quiet) quiet=(--quiet); shift ;;
    -*) echo "usage: tools/bench/sass_report.sh [--arch 80,90] [--only TEXT] [--quiet] [LIBRARY]" >&2; exit 2 ;;
    *) binaries+=("$1"); shift ;;
  esac
done

for folder in "$PWD"/.venv/lib/python3*/site-packages/nvidia/cu*/bin /usr/local/cuda/bin; do PATH=$PATH:$folder; done
for tool in cuobjdump nvdisasm; do
  command -v "$tool" >/dev/null || { echo "SKIPPED: $tool not found; tools/setup.sh --tests installs it"; exit 0; }
done

out=build/sass
mkdir -p "$out"
g++ -std=c++20 -O0 -I. -Itests tools/bench/kernel_shapes.cpp -lfmt -o "$out/kernel_shapes"

if ((${#binaries[@]} == 0)); then
  command -v nvcc >/dev/null || { echo "SKIPPED: nvcc not found"; exit 0; }
  launcher=()
  command -v ccache >/dev/null && launcher=(ccache)
  for arch in ${archs//,/ }; do
    for source in kernels/attention/cuda/*.cu kernels/attention/cuda/instantiations/*.cu kernels/norm/*.cu kernels/optim/*.cu; do
      [[ "$source" == *"$only"* ]] || continue
      name=${source#kernels/}
      cubin="$out/sm_$arch-${name//\//-}.cubin"
      "${launcher[@]}" nvcc -std=c++17 -O3 -I. -cubin -arch="sm_$arch" "$source" -o "$cubin"
      binaries+=("$cubin")
    done
  done
fi
exec python3 tools/bench/sass_report.py --shapes "$out/kernel_shapes" "${quiet[@]}" "${binaries[@]}"
