# Several processes train as one: equal numbers, checkpoints that any number of processes resumes, and an end with one line when one of them dies.
. "$(dirname "$0")/support.sh"
need_fashion_mnist
cd "$scratch"
export OMP_NUM_THREADS=1 GOMP_SPINCOUNT=2000
venv=$source_dir/.venv/bin
tiny+=(--set train.precision=fp32)
not_run() { echo "not run: $*"; }

# train DIR [more]: 8 images a step, one thread a process.
train() {
  local out=$1
  shift
  tiny_train "$out" --set train.threads=1 "$@" >"$out.out" 2>"$out.err" || { fail "training $out: $(tail -n 3 "$out.err")"; return 1; }
}
reproducible=(--set train.reproducible_reduction=true --set train.micro_batch_size=2)

# same_files A B: checkpoints of equal bits.
same_files() {
  local file
  for file in model ema_0.995 optimizer; do
    cmp -s "$1/checkpoints/step-6/$file.safetensors" "$2/checkpoints/step-6/$file.safetensors" || fail "$file of $2 is not that of $1"
  done
}

# near A B: losses and gradient norms of every line, and every weight, to the error of a float32 sum.
near() {
  python3 - "$1" "$2" <<'PYTHON' || fail "$2 is not near $1"
import array, json, math, sys
def lines(run):
    return [json.loads(line) for line in open(run + "/metrics.jsonl")]
def tensors(run, name):
    data = open(f"{run}/checkpoints/step-6/{name}.safetensors", "rb").read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        yield key, entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end]
a, b = sys.argv[1:]
first, second = lines(a), lines(b)
assert len(first) == len(second) == 6
for x, y in zip(first, second):
    assert x["step"] == y["step"] and x["lr"] == y["lr"]
    for key in ("loss", "grad_norm", "eval_loss"):
        assert (key in x) == (key in y)
        if key in x:
            assert abs(x[key] - y[key]) <= 2e-6 * abs(x[key]), (key, x[key], y[key])
for name in ("model", "ema_0.995", "optimizer"):
    for (key, kind, shape, x), (key2, kind2, shape2, y) in zip(tensors(a, name), tensors(b, name), strict=True):
        assert (key, kind, shape) == (key2, kind2, shape2), (key, key2)
        if kind == "F32":  # in the mean: where a gradient is a rounding error, AdamW makes a whole step of its sign
            p, q = array.array("f", x), array.array("f", y)
            difference, norm = math.hypot(*(u - v for u, v in zip(p, q))), math.hypot(*p)
            assert difference <= 1e-3 * norm + 1e-12, (name, key, difference, norm)
PYTHON
}

# 1, 2 and 4 processes: near each other, and with the fixed tree the same bits.
train one && train two --processes 2 && train four --processes 4 && near one two && near one four
# Held-out losses, pictures and scores taken in training are those of one process too.
succeed . "$uvit" fid-stats "$source_dir/configs/fashion_mnist/uvic.toml" -o reference.npz --limit 100
watched=(--set train.sample_every=3 --set eval.every_steps=3 --set eval.n=12 --set "eval.reference=$scratch/reference.npz")
train tree1 "${reproducible[@]}" "${watched[@]}" && train tree2 --processes 2 "${reproducible[@]}" "${watched[@]}" &&
  train tree4 --processes 4 "${reproducible[@]}" "${watched[@]}"
for tree in tree2 tree4; do
  same_files tree1 $tree
  for file in scores.jsonl samples/step-3.png samples/step-6.png; do cmp -s tree1/$file $tree/$file || fail "$file of $tree is not that of tree1"; done
  diff <(grep -o '"eval_loss":[^,}]*' tree1/metrics.jsonl) <(grep -o '"eval_loss":[^,}]*' $tree/metrics.jsonl) >/dev/null || fail "held-out losses of $tree"
done
[ "$(wc -l <tree4/scores.jsonl)" = 2 ] && grep -q '"eval_loss":[0-9]' tree4/metrics.jsonl || fail "tree4 has no scores or no held-out loss"
train sharded --processes 2 --set train.shard_optimizer=true "${reproducible[@]}" && same_files tree1 sharded
[ -z "$(cat two.out | grep -v '^trained 6 steps')" ] || fail "others than rank 0 speak: $(cat two.out)"

# Any number of processes goes on where another one stopped.
train fewer --processes 4 "${reproducible[@]}" --set train.steps=3 && train fewer --resume "${reproducible[@]}" && same_files tree1 fewer
train more "${reproducible[@]}" --set train.steps=3 && train more --resume --processes 2 --set train.shard_optimizer=true "${reproducible[@]}" && same_files tree1 more

# What cannot work is refused before a process is started.
expect 1 'batch_size = 8 cannot be shared equally by 3 processes' tiny_train no --processes 3
expect 1 'micro_batch_size' tiny_train no --processes 2 --set train.threads=1 --set train.reproducible_reduction=true
expect 1 'not with 3' tiny_train no --processes 3 --set train.batch_size=9 "${reproducible[@]}" --set train.micro_batch_size=3
expect 1 'train.threads' tiny_train no --processes 2 "${reproducible[@]}"
expect 1 'already holds a run' tiny_train two --processes 2
expect 1 'data.path' tiny_train no --processes 2 --set data.path=/nowhere/at/all
expect 2 'leave it out' env RANK=0 WORLD_SIZE=2 "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" --processes 2
expect 1 'RANK=7' env RANK=7 WORLD_SIZE=2 "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" --out no
expect 1 'did not meet the others' env RANK=1 WORLD_SIZE=2 MASTER_PORT=1 "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" --out no \
  --set train.process_timeout_s=1

endless=(--set train.steps=1000000 --set train.checkpoint_every=20 --set train.eval_every=0 --set train.log_every=1000 --set train.threads=1)
# start DIR [more]: a run without end, in the background, once it has a checkpoint; its launcher is $pid.
start() {
  local out=$1 i
  shift
  run_as=exec tiny_train "$out" "${endless[@]}" "$@" >"$out.out" 2>"$out.err" &
  pid=$!
  for ((i = 0; i < 400; ++i)); do [ -e "$out/checkpoints/latest" ] && return; sleep 0.1; done
  fail "$out made no checkpoint: $(tail -n 3 "$out.err")"
}
# process_of PARENT RANK: below it, at any depth
process_of() {
  local child
  for child in $(pgrep -P "$1"); do
    process_of "$child" "$2"
    grep -zqx "RANK=$2" "/proc/$child/environ" 2>/dev/null && echo "$child" && return
  done
}
# ended CODE SECONDS PATTERN DIR: the launcher ends in time with that code and exactly one line, and no process of it is left.
ended() {
  local begin=$SECONDS got children
  children=$(pgrep -P $pid)
  wait $pid
  got=$?
  ((got == $1)) || fail "$4: exit code $got, expected $1 ($(tail -n 3 "$4.err"))"
  ((SECONDS - begin <= $2)) || fail "$4: took $((SECONDS - begin)) s to end"
  for child in $children; do kill -0 "$child" 2>/dev/null && fail "$4: process $child is left"; done
  [ -z "$3" ] && return
  [ "$(grep -c 'uvit: error: ' "$4.err")" = 1 ] || fail "$4: not one error line: $(cat "$4.err")"
  grep -qE -- "^uvit: error: $3" "$4.err" || fail "$4: no /$3/ in $(cat "$4.err")"
}

start killed --processes 4
kill -9 "$(process_of $pid 2)"
ended 137 3 'rank 2 of 4 was killed by signal 9' killed
train_killed_further() { tiny_train killed --resume --set train.threads=1 --set train.steps=40 --set train.eval_every=0; }
succeed 'trained' train_killed_further

start first_killed --processes 2
kill -9 "$(process_of $pid 0)"
ended 137 3 'rank 0 of 2 was killed by signal 9' first_killed

start hung --processes 2 --set train.process_timeout_s=2
kill -STOP "$(process_of $pid 1)"
ended 3 8 'rank 1 is gone or does not answer' hung

start terminated --processes 2
kill -TERM $pid
ended 0 10 '' terminated
grep -q '^go on with: ' terminated.out || fail "no word how to go on: $(cat terminated.out terminated.err)"
[ "$(readlink terminated/checkpoints/latest)" = "step-$(sed -n 's/^stopped at step \([0-9]*\);.*/\1/p' terminated.out)" ] || fail "the last step was not saved"

start scoring --processes 2 --set eval.every_steps=20 --set eval.n=20000 --set "eval.reference=$scratch/reference.npz"
sleep 1 # into the score of step 20
kill -TERM $pid
ended 0 10 '' scoring
[ "$(readlink scoring/checkpoints/latest)" = step-20 ] && [ ! -e scoring/scores.jsonl ] || fail "the signal did not come within the score of step 20: $(ls -l scoring/checkpoints)"

start orphans --processes 2
children=$(pgrep -P $pid)
kill -9 $pid
wait $pid 2>/dev/null
for ((i = 0; i < 100; ++i)); do
  left=0
  for child in $children; do kill -0 "$child" 2>/dev/null && left=1; done
  ((left)) || break
  sleep 0.1
done
((left == 0)) || fail "the processes outlive their launcher"

# Drawing images over processes changes none of them.
succeed . "$uvit" sample one -n 23 --out one.png --images drawn1 --threads 1
succeed 'NFE 5' "$uvit" sample one -n 23 --out two.png --images drawn2 --threads 1 --processes 2
[ "$(ls drawn2 | wc -l)" = 23 ] || fail "23 images expected"
diff -r drawn1 drawn2 >/dev/null || fail "images drawn by two processes differ"
fid() { "$uvit" fid one fashion_mnist:test --limit 20 -n 12 "$@" 2>/dev/null | sed -n 's/^FD.*@12 = \([^ ]*\) .*/\1/p'; }
[ -n "$(fid)" ] && [ "$(fid)" = "$(fid --processes 2)" ] || fail "fid over processes: $(fid) and $(fid --processes 2)"
succeed '^FD\[fmnist-cnn\]@10 = ' "$uvit" evaluate one -n 10 --agreement 10 --processes 2

# torchrun, and its restart after a death.
if [ -x "$venv/torchrun" ]; then
  torchrun() { "$venv/torchrun" --no-python --nproc-per-node 2 --master-port $((20000 + RANDOM % 10000)) "$@"; }
  command=("$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" "${tiny[@]}" --set train.threads=1 "${reproducible[@]}")
  torchrun -- "${command[@]}" --out torchrun >torchrun.out 2>torchrun.err || fail "torchrun: $(tail -n 20 torchrun.err)"
  same_files tree1 torchrun

  long=(--set train.steps=300 --set train.checkpoint_every=20 --set train.eval_every=0 --set train.keep_checkpoints=0)
  "${command[@]}" "${long[@]}" --out undisturbed >/dev/null 2>undisturbed.err || fail "undisturbed: $(tail -n 3 undisturbed.err)"
  torchrun --max-restarts 2 --monitor-interval 0.2 -- "${command[@]}" "${long[@]}" --out elastic --resume >elastic.out 2>elastic.err &
  pid=$!
  for ((i = 0; i < 600; ++i)); do [ -e elastic/checkpoints/step-20 ] && break; sleep 0.05; done
  kill -9 "$(process_of $pid 1)" || fail "torchrun's rank 1 is not there to be killed"
  wait $pid || fail "elastic: $(tail -n 20 elastic.err)"
  grep -q 'training begins at step 0' elastic.err || fail "the first start does not say that it begins: $(head -c 600 elastic.err)"
  grep -q 'resuming from .*elastic/checkpoints/step-' elastic.err || fail "torchrun's restart did not go on from a checkpoint"
  cmp undisturbed/checkpoints/step-300/model.safetensors elastic/checkpoints/step-300/model.safetensors || fail "a restart changed the model"
else
  not_run "torchrun is not installed (tools/setup.sh --tests)"
fi

# Two machines: network namespaces joined by a pair of virtual cables.
a=uvit-a-$$ b=uvit-b-$$
if ip netns add "$a" 2>ip.err && ip netns add "$b" 2>>ip.err && ip link add uvit-va type veth peer name uvit-vb 2>>ip.err; then
  trap 'ip netns del "$a"; ip netns del "$b"; chmod -R u+w "$scratch" 2>/dev/null; rm -rf "$scratch"' EXIT
  ip link set uvit-va netns "$a" && ip link set uvit-vb netns "$b"
  ip -n "$a" addr add 10.77.0.1/24 dev uvit-va && ip -n "$b" addr add 10.77.0.2/24 dev uvit-vb
  ip -n "$a" link set uvit-va up && ip -n "$b" link set uvit-vb up && ip -n "$a" link set lo up && ip -n "$b" link set lo up
  machine() { # RANK NAMESPACE
    ip netns exec "$2" env RANK="$1" WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=10.77.0.1 MASTER_PORT=29400 "$uvit" train \
      "$source_dir/configs/fashion_mnist/uvic.toml" "${tiny[@]}" --set train.threads=1 "${reproducible[@]}" --out machines >"machine$1.out" 2>"machine$1.err"
  }
  machine 1 "$b" &
  machine 0 "$a" || fail "namespaces: $(tail -n 3 machine0.err machine1.err)"
  wait $! || fail "namespaces: $(tail -n 3 machine1.err)"
  same_files tree1 machines
else
  not_run "two network namespaces: $(head -n 1 ip.err)"
  ip netns del "$a" 2>/dev/null
  ip netns del "$b" 2>/dev/null
fi

if command -v mpirun >/dev/null; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  mpirun --oversubscribe -n 2 "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" "${tiny[@]}" --set train.threads=1 "${reproducible[@]}" --out mpi \
    >mpi.out 2>mpi.err || fail "mpirun: $(tail -n 3 mpi.err)"
  same_files tree1 mpi
else
  not_run "mpirun is not installed"
fi
finish
