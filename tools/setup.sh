#!/usr/bin/env bash
# Installs what uvit needs on Debian 12: packages by apt, LibTorch by pip into .venv of this folder. Running it again is quick.
#   tools/setup.sh           what the program needs (LibTorch without its CUDA libraries: about 0.6 GB to fetch)
#   tools/setup.sh --tests   also what the tests need: Catch2, and a whole Python torch, numpy and tensorboard as independent readers (about 3 GB)
#   tools/setup.sh --cuda    also LibTorch's CUDA libraries and compute-sanitizer, for a build with CUDA (nvcc of CUDA 13 comes from elsewhere)
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=2.11.0
tests=0 cuda=0
for argument in "$@"; do
  case "$argument" in
    --tests) tests=1 ;;
    --cuda) cuda=1 ;;
    *) echo "usage: tools/setup.sh [--tests] [--cuda]" >&2; exit 2 ;;
  esac
done

packages=(build-essential cmake ninja-build git pkg-config ca-certificates ccache mold python3 python3-venv
  libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libcli11-dev libtomlplusplus-dev libspdlog-dev libfmt-dev
  nlohmann-json3-dev zlib1g-dev libjpeg62-turbo-dev libzip-dev libicu-dev libssl-dev dataset-fashion-mnist)
# torch.compile builds against Python.h; the fuzzers need clang; the tests of several processes pgrep and ip
((tests)) && packages+=(catch2 python3-dev clang-14 procps iproute2)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "setup: installing ${missing[*]}"
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: not root and no sudo; as root, run: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# A LibTorch of the user's own needs no .venv.
if [ -n "${CMAKE_PREFIX_PATH:-}" ] && ((!tests)); then
  echo "setup: using the LibTorch of CMAKE_PREFIX_PATH=$CMAKE_PREFIX_PATH"
  exit 0
fi

level=cpp
((cuda || tests)) && level=full
((tests)) && level=tests
stamp=.venv/uvit-$torch_version-$level
if [ ! -e "$stamp" ] && ! { [ "$level" = cpp ] && compgen -G ".venv/uvit-$torch_version-*" >/dev/null; } &&
  ! { [ "$level" = full ] && [ -e ".venv/uvit-$torch_version-tests" ]; }; then
  echo "setup: LibTorch $torch_version into .venv"
  # Debian's own Python: a .venv made by another one breaks when that one goes.
  [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
  pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet)
  if [ "$level" = cpp ]; then
    "${pip[@]}" --no-deps "torch==$torch_version"
    "${pip[@]}" 'cuda-toolkit[cudart,cupti]==13.0.2' # libtorch_cpu links both, GPU or not
  else
    "${pip[@]}" "torch==$torch_version"
    ((tests)) && "${pip[@]}" numpy tensorboard setuptools
  fi
  touch "$stamp"
fi
((tests)) && { .venv/bin/python -c 'import safetensors' 2>/dev/null || .venv/bin/python -m pip --disable-pip-version-check install --quiet safetensors; }
# For the tests with a GPU, under memcheck and racecheck.
if ((cuda)) || { ((tests)) && command -v nvidia-smi >/dev/null; }; then
  compgen -G '.venv/lib/python3*/site-packages/nvidia/cu*/bin/compute-sanitizer' >/dev/null ||
    .venv/bin/python -m pip --disable-pip-version-check install --quiet nvidia-cuda-sanitizer-api==13.0.85
fi
# The disassembler of tools/bench/sass_report.sh, which not every CUDA toolkit has.
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
if ((tests)) && [ -n "$nvcc" ] && ! compgen -G '.venv/lib/python3*/site-packages/nvidia/cu*/bin/nvdisasm' >/dev/null; then
  .venv/bin/python -m pip --disable-pip-version-check install --quiet nvidia-cuda-cuobjdump==13.2.86 nvidia-cuda-nvdisasm==13.5.37
fi
echo "setup: ready"
