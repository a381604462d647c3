#!/usr/bin/env bash
# Compares the data loader with torchvision's DataLoader and Pillow, which it installs into build/bench-venv ($UVIT_BENCH_VENV), over the torch of .venv.
# Arguments go to tools/bench/data.py, for instance: tools/bench/data.sh --rounds 9
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${UVIT_BENCH_VENV:-build/bench-venv}
if ! "$venv/bin/python" -c 'import torchvision, PIL' 2>/dev/null; then
  [[ -x "$venv/bin/python" ]] || python3 -m venv "$venv"
  realpath .venv/lib/python3*/site-packages > "$(echo "$venv"/lib/python3*/site-packages)/torch.pth"
  "$venv/bin/pip" install --quiet --no-deps torchvision==0.26 pillow # 0.26 is that of torch 2.11
fi
cmake --build build --target bench_data uvit -- --quiet
exec "$venv/bin/python" tools/bench/data.py "$@"
