#!/usr/bin/env bash
# Compares the evaluation with pytorch-fid 0.3.0 and torch-fidelity 0.4.0, which it installs into build/bench-venv ($UVIT_BENCH_VENV), over the
# torch of .venv.
# Arguments go to tools/bench/fid.py, for instance: tools/bench/fid.sh --end-to-end 5000
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${UVIT_BENCH_VENV:-build/bench-venv}
if [[ ! -e "$venv/complete" ]]; then
  python3 -m venv "$venv"
  realpath .venv/lib/python3*/site-packages > "$(echo "$venv"/lib/python3*/site-packages)/torch.pth"
  "$venv/bin/pip" install --quiet --no-deps torchvision==0.26 scipy==1.17.1 pytorch-fid==0.3.0 torch-fidelity==0.4.0 pillow tqdm
  touch "$venv/complete"
fi
cmake --build build --target bench_fid uvit -- --quiet
exec "$venv/bin/python" tools/bench/fid.py "$@"
