#!/usr/bin/env bash
# operator_python.sh LIBUVIT_OPS SOURCE_DIR: the tests of the attention operator in Python.
set -euo pipefail
python="$2/.venv/bin/python"
if [ ! -x "$python" ]; then
  echo "SKIPPED: no $python; tools/setup.sh makes it"
  exit 0
fi
exec "$python" "$2/tests/attention/operator_test.py" "$1"
