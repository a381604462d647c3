# Sourced by the tests that run the program. $1 is the program, $2 the source folder.
set -uo pipefail
uvit=$1 source_dir=$2
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch" 2>/dev/null; rm -rf "$scratch"' EXIT
failures=0

fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# expect CODE PATTERN command...: the exit code; one line on stderr that starts with "uvit: error: " and matches PATTERN (case-insensitive).
expect() {
  local code=$1 pattern=$2 got
  shift 2
  "$@" >"$scratch/stdout" 2>"$scratch/stderr"
  got=$?
  ((got == code)) || fail "exit code $got, expected $code: $* ($(head -c 300 "$scratch/stderr"))"
  [ "$(grep -c '^uvit: error: ' "$scratch/stderr")" = 1 ] || fail "not one error line: $* ($(head -c 600 "$scratch/stderr"))"
  tail -n 1 "$scratch/stderr" | grep -q '^uvit: error: ' || fail "the error is not the last line: $* ($(tail -n 3 "$scratch/stderr"))"
  grep '^uvit: error: ' "$scratch/stderr" | grep -qiE -- "$pattern" || fail "no /$pattern/ in: $(cat "$scratch/stderr")"
  grep -qiE 'frame #|backtrace|terminate called|c10::' "$scratch/stderr" && fail "a stack trace: $* ($(head -c 600 "$scratch/stderr"))"
  return 0
}

# succeed PATTERN command...: exit code 0 and PATTERN on stdout.
succeed() {
  local pattern=$1
  shift
  if ! "$@" >"$scratch/stdout" 2>"$scratch/stderr"; then fail "$* ($(tail -n 3 "$scratch/stderr"))"; return 0; fi
  grep -qE -- "$pattern" "$scratch/stdout" || fail "no /$pattern/ in the output of $*: $(head -c 600 "$scratch/stdout")"
}

finish() {
  if ((failures)); then echo "$failures checks failed"; exit 1; fi
  echo "all checks passed"
}

# tiny_train DIR [more arguments]: a training of a few seconds on Fashion-MNIST.
tiny=(--set model.embed_dim=32 --set model.depth=2 --set model.num_heads=2 --set model.patch_size=7 --set train.steps=6 --set train.batch_size=8
  --set train.eval_every=3 --set train.eval_images=16 --set train.sample_every=0 --set train.checkpoint_every=3 --set train.log_every=1
  --set optimizer.warmup_steps=1 --set sample.batch_size=5 --set sample.num_steps=3 --set "sample.grid=[2,5]" --set optimizer.lr_schedule=constant)
tiny_train() {
  local out=$1
  shift
  ${run_as:-} "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" --out "$out" "${tiny[@]}" "$@"
}
need_fashion_mnist() {
  [ -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ] || { echo "SKIPPED: dataset-fashion-mnist is not installed"; exit 0; }
}
