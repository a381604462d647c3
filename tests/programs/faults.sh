# What goes wrong around a training: full and read-only disks, broken images, a clock that jumps, a second run in the same folder, other settings on
# resume, damaged checkpoints, a signal in the middle of an evaluation, samples or a score. Each ends in one clear line, with the last checkpoint usable.
. "$(dirname "$0")/support.sh"
need_fashion_mnist
cd "$scratch"
export OMP_NUM_THREADS=1
config=$source_dir/configs/fashion_mnist/uvic.toml
mounted=()
trap 'for m in "${mounted[@]}"; do umount "$m" 2>/dev/null; done; rm -rf "$scratch"' EXIT
# small_disk FOLDER SIZE: a file system of its own, where that is permitted.
small_disk() {
  mkdir -p "$1"
  [ "$(id -u)" = 0 ] && mount -t tmpfs -o "size=$2" tmpfs "$1" 2>/dev/null && mounted+=("$1")
}
steps_of() { sed -nE 's/^\{"step":([0-9]+),.*/\1/p' "$1/metrics.jsonl"; }
without_clock() { sed -E 's/"(images_per_second|data_wait|seconds)":[^,}]*,?//g' "$1/metrics.jsonl"; }
has_state() { succeed "^$1 +$2 +" "$uvit" runs "$1"; }

tiny_train whole >/dev/null 2>err || fail "training: $(tail -n 3 err)"
has_state whole finished

# A disk that is full when a checkpoint is written: the one before stays, nothing half-written does, and with more space the run goes on.
if small_disk disk 3m; then
  tiny_train disk/run --set train.steps=3 >/dev/null 2>err || fail "training on a small disk: $(tail -n 3 err)"
  head -c 100m /dev/zero >disk/ballast 2>/dev/null
  truncate -s -200K disk/ballast # room for the log, not for the checkpoint
  expect 1 'step-6.*space' tiny_train disk/run --resume
  [ "$(ls disk/run/checkpoints | grep -c step-)" = 1 ] || fail "a full disk left $(ls disk/run/checkpoints)"
  rm disk/ballast
  succeed 'trained 6 steps' tiny_train disk/run --resume
  cmp whole/checkpoints/step-6/optimizer.safetensors disk/run/checkpoints/step-6/optimizer.safetensors || fail "a full disk changed the run"

  # And when a line of the log is: no half line, no half record.
  tiny_train disk/log --set train.steps=3 >/dev/null 2>err || fail "training on a small disk: $(tail -n 3 err)"
  used=$(du -k --max-depth=0 disk | cut -f1)
  mount -o remount,size=$((used + 8))k disk # room for a page or two, not for a thousand lines
  expect 1 'space' tiny_train disk/log --resume --set train.steps=4000 --set train.checkpoint_every=4000 --set train.eval_every=0
  tail -c 1 disk/log/metrics.jsonl | od -An -c | grep -q '\\n' || fail "half a line in metrics.jsonl: $(tail -n 1 disk/log/metrics.jsonl)"
  mount -o remount,size=8m disk
  succeed 'trained 6 steps' tiny_train disk/log --resume
  [ "$(steps_of disk/log | tr '\n' ' ')" = "1 2 3 4 5 6 " ] || fail "steps in the log: $(steps_of disk/log | tr '\n' ' ')"

  # A folder that cannot be written.
  mkdir disk/read_only
  mount -o remount,ro disk
  expect 1 'disk/read_only.*read-only' tiny_train disk/read_only
  expect 1 'disk/new.*read-only' tiny_train disk/new
  mount -o remount,rw disk
else
  echo "full and read-only disks: left out, for mounting is not permitted"
fi

# One broken image among two thousand.
mkdir -p images/a
for i in $(seq 1 1999); do ln "$source_dir/tests/fixtures/fid_png_A/0.png" "images/a/$i.png" 2>/dev/null || cp "$source_dir/tests/fixtures/fid_png_A/0.png" "images/a/$i.png"; done
head -c 1000 "$source_dir/tests/fixtures/fid_png_A/0.png" >images/a/1000.5.png
folder=(--set data.dataset=folder --set data.path=images --set data.image_size=28 --set data.num_classes=0 --set diffusion.label_dropout=0
  --set sample.guidance_scale=1 --set train.batch_size=100 --set train.steps=21 --set train.eval_every=0 --set train.checkpoint_every=21)
expect 1 'images/a/1000.5.png' tiny_train broken "${folder[@]}"
has_state broken failed
tiny_train skipped "${folder[@]}" --set data.on_error=skip >out 2>err || fail "data.on_error = skip: $(tail -n 3 err)"
grep -q '^1 broken image' err || fail "nothing is said of the broken image: $(tail -n 3 err)"

# A clock that jumps: the times of the log run forward.
if cc -shared -fPIC -O1 -o clock.so "$(dirname "$0")/clock.c" -ldl 2>/dev/null; then
  LD_PRELOAD=$PWD/clock.so tiny_train clock --set train.steps=3 >/dev/null 2>err || fail "jumping clock: $(tail -n 3 err)"
  LD_PRELOAD=$PWD/clock.so tiny_train clock --resume >/dev/null 2>err || fail "jumping clock, resumed: $(tail -n 3 err)"
  seconds=$(sed -E 's/.*"seconds":([0-9.e-]+).*/\1/' clock/metrics.jsonl)
  [ "$(wc -l <<<"$seconds")" = 6 ] && [ "$seconds" = "$(sort -g <<<"$seconds")" ] || fail "seconds: $seconds"
  # The first field of each event is its time: a key of 0x09 and a little-endian double, behind 12 bytes of length and checksum.
  /usr/bin/python3 - clock <<'PYTHON' || fail "times of the event files run backwards"
import glob, struct, sys
before = 0.0
for path in sorted(glob.glob(sys.argv[1] + "/events.out.tfevents.*")):
    data = open(path, "rb").read()
    at = 0
    while at < len(data):
        size = struct.unpack_from("<Q", data, at)[0]
        time = struct.unpack_from("<d", data, at + 13)[0]
        sys.exit(f"{path}: {time} after {before}") if time < before else None
        before = time
        at += 16 + size
PYTHON
  cmp whole/checkpoints/step-6/model.safetensors clock/checkpoints/step-6/model.safetensors || fail "the clock changed the run"
fi

# A second run in the folder of the first; and a folder whose run was killed.
run_as=exec tiny_train busy --set train.steps=1000000 --set train.checkpoint_every=100 --set train.eval_every=0 >/dev/null 2>err &
pid=$!
for ((i = 0; i < 600; ++i)); do [ -e busy/checkpoints/latest ] && break; sleep 0.05; done
has_state busy running
succeed '"state": "running"' "$uvit" runs busy --json
expect 1 "busy.*already, by process $pid on $(hostname)" tiny_train busy
expect 1 "busy.*already, by process $pid on" tiny_train busy --resume
kill -9 $pid
wait $pid 2>/dev/null
has_state busy killed
last=$(readlink busy/checkpoints/latest | tr -dc 0-9)
succeed "trained $((last + 1)) steps" tiny_train busy --resume --set train.steps=$((last + 1)) --set train.checkpoint_every=100 --set train.eval_every=0
has_state busy finished

# Started, and gone before the first checkpoint: a scheduler's --resume begins anew. Where nothing was started it is a slip of the hand.
mkdir early && : >early/lock
tiny_train early --resume >/dev/null 2>err || fail "--resume of a run without checkpoints: $(tail -n 3 err)"
grep -q 'no checkpoint yet: training begins at step 0' err || fail "nothing is said of the new beginning: $(cat err)"
cmp whole/checkpoints/step-6/model.safetensors early/checkpoints/step-6/model.safetensors || fail "the run that began anew differs"
expect 1 'nowhere.*no checkpoint' tiny_train nowhere --resume
[ -e nowhere ] && fail "a refused --resume left a folder"

# Other settings on resume: all that differ are named with both values; what may change does, and is said.
cp -r whole changed
expect 1 'optimizer.lr \(the run has 0.002, the configuration 0.5\), train.seed \(the run has 0, the configuration 7\)' \
  tiny_train changed --resume --set optimizer.lr=0.5 --set train.seed=7
tiny_train changed --resume --set train.steps=8 --set train.log_every=2 --set data.workers=2 >/dev/null 2>err || fail "settings that may change: $(tail -n 3 err)"
grep -q 'changed since the checkpoint: .*train.log_every (the run has 1, the configuration 2)' err || fail "what changed is not said: $(cat err)"

# Damaged checkpoints: the newest is named and the one before it used; when all are damaged there is one line.
cp -r whole damaged
printf '\xff\xff' | dd of=damaged/checkpoints/step-6/optimizer.safetensors bs=1 seek=40000 conv=notrunc 2>/dev/null
echo '{"step":"x","loss":1}' >>damaged/metrics.jsonl # lines that somebody edited are left out
echo '{"metric":5,"value":1,"recipe":{"taken":3,"step":4}}' >>damaged/scores.jsonl
echo '{"state":5}' >damaged/status.json
succeed '^.*damaged  *failed' "$uvit" runs .
tiny_train damaged --resume >/dev/null 2>err || fail "a damaged checkpoint: $(tail -n 3 err)"
grep -q 'step-6 cannot be used: .*optimizer.safetensors' err || fail "the damaged checkpoint is not named: $(cat err)"
grep -q 'resuming from .*step-3' err || fail "not the checkpoint before: $(cat err)"
for file in model optimizer ema_0.995; do cmp whole/checkpoints/step-6/$file.safetensors damaged/checkpoints/step-6/$file.safetensors || fail "$file differs"; done
[ "$(steps_of damaged | tr '\n' ' ')" = "1 2 3 4 5 6 " ] || fail "steps in the log: $(steps_of damaged | tr '\n' ' ')"
rm damaged/checkpoints/step-6/state.json
: >damaged/checkpoints/step-3/model.safetensors
expect 1 'no checkpoint of damaged is whole \(2 tried\)' tiny_train damaged --resume

# SIGTERM within samples, an evaluation and a score that would take minutes: saved within ten seconds.
"$uvit" fid-stats "$config" -o reference.npz --limit 100 >/dev/null 2>&1
# signalled NAME arguments...: stops a training in what follows its third step.
signalled() {
  local name=$1 begun
  shift
  run_as=exec tiny_train "$name" --set train.steps=3 "$@" >out 2>err &
  pid=$!
  for ((i = 0; i < 600; ++i)); do [ -s "$name/metrics.jsonl" ] && grep -q "\"step\":$after," "$name/metrics.jsonl" && break; sleep 0.05; done
  sleep 1
  begun=$SECONDS
  kill -TERM $pid
  wait $pid
  [ $? = 0 ] || fail "$name: SIGTERM ends with code $? ($(tail -n 3 err))"
  ((SECONDS - begun <= 10)) || fail "$name: $((SECONDS - begun)) seconds from SIGTERM to the end"
  grep -q '^stopped at step 3' out || fail "$name: $(cat out err | tail -n 3)"
  has_state "$name" interrupted
}
slow=(--set sample.num_steps=1000 --set sample.solver=ddim --set sample.batch_size=50)
after=3 signalled preview --set train.sample_every=3 "${slow[@]}" --set "sample.grid=[20,50]"
after=3 signalled scoring --set eval.every_steps=3 --set eval.n=1000 --set eval.reference=reference.npz "${slow[@]}"
after=2 signalled evaluation --set train.eval_images=10000 --set model.embed_dim=256 --set model.patch_size=2 --set train.eval_every=3
for name in preview scoring; do [ -e "$name/checkpoints/step-3/state.json" ] || fail "$name: no checkpoint"; done
grep -q '"unfinished_step"' preview/checkpoints/step-3/state.json || fail "preview: what was unfinished is not in the checkpoint"
# With little to draw it goes on, makes up for what is missing, and is the run that was not stopped.
succeed 'trained 6 steps' tiny_train preview --resume --set train.sample_every=3
[ -s preview/samples/step-3.png ] && [ -s preview/samples/step-6.png ] || fail "samples: $(ls preview/samples)"
cmp <(without_clock whole) <(without_clock preview) || fail "a signal changed the log"
cmp whole/checkpoints/step-6/optimizer.safetensors preview/checkpoints/step-6/optimizer.safetensors || fail "a signal changed the run"
succeed 'all 3 steps were trained before' tiny_train scoring --resume --set train.steps=3 --set eval.every_steps=3 --set eval.n=10 --set eval.reference=reference.npz
[ "$(grep -c '"step":"3"' scoring/scores.jsonl)" = 1 ] || fail "the score of step 3: $(cat scoring/scores.jsonl)"

# The runs of a folder.
succeed '^\./whole +finished +6 +6 +[0-9]\.' "$uvit" runs .
grep -qE '^\./broken: .*1000.5.png' stdout || fail "runs: the error of a failed run is missing: $(cat stdout)"
expect 1 'nowhere is no folder' "$uvit" runs nowhere
mkdir empty && expect 1 'empty holds no run' "$uvit" runs empty
# On a terminal: loss, rate, time left, memory.
if command -v script >/dev/null; then
  timeout 60 script -qec "$(printf '%q ' "$uvit" train "$config" --out terminal "${tiny[@]}" --set train.steps=1500 --set train.eval_every=0)" screen >/dev/null
  tr '\r' '\n' <screen >lines # no pipe into grep -q: it ends before tr has written all
  grep -qE 'train \[=* *\] [0-9]+/12000 .* images/s +(ETA|in) .*loss [0-9.]+ +[0-9]+ MiB' lines || fail "on a terminal: $(tail -c 600 screen)"
fi
finish
