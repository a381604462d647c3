# The kernels' tests on a GPU under one tool of NVIDIA's compute-sanitizer: compute_sanitizer.sh TOOL TEST_GPU SOURCE_DIR.
# The tool comes with a CUDA toolkit, or by tools/setup.sh --cuda.
set -euo pipefail
tool=$1 test=$2 source_dir=$3
sanitizer=$(command -v compute-sanitizer || ls "$source_dir"/.venv/lib/python3*/site-packages/nvidia/*/bin/compute-sanitizer 2>/dev/null | head -n 1 || true)
if [ -z "$sanitizer" ]; then
  echo "SKIPPED: no compute-sanitizer: run tools/setup.sh --cuda"
  exit 77
fi
[ -x "$sanitizer" ] || sanitizer="/lib64/ld-linux-x86-64.so.2 $sanitizer" # pip drops the mode of files that it takes for data
"$test" "GPU optimizer*" >/dev/null || { code=$?; [ "$code" != 77 ] || { echo "SKIPPED: no usable GPU"; exit 77; }; exit "$code"; }
$sanitizer --tool "$tool" --error-exitcode 1 "$test" "[kernels],GPU attention: values of another width"
