# A training that is killed with SIGKILL at fifty moments, and started again with --resume each time, ends as the one that was left alone: weights,
# averages and their snapshots, optimizer state, scores and every number of the log but those of the clock, bit for bit. Half of the moments are within
# the writing of a checkpoint, a third anywhere in training, and the others before its first step. They are counted in steps of the log, so that fifty
# kills fall within the training on a machine of any speed.
. "$(dirname "$0")/support.sh"
need_fashion_mnist
cd "$scratch"
export OMP_NUM_THREADS=1
RANDOM=9 # the moments: the same in every run of this test, as far as the machine lets them

"$uvit" fid-stats "$source_dir/configs/fashion_mnist/uvic.toml" -o reference.npz --limit 100 >/dev/null 2>&1
steps=900
train=("${tiny[@]}" --set train.steps=$steps --set train.checkpoint_every=3 --set train.log_every=2 --set train.eval_every=30 --set train.threads=1
  --set train.eval_images=8 --set eval.every_steps=45 --set eval.n=10 --set eval.reference=reference.npz --set "train.ema_power=[0.1]"
  --set train.keep_checkpoints=2 --set train.sample_every=300 --set "sample.grid=[1,2]")
config=$source_dir/configs/fashion_mnist/uvic.toml

start=$(date +%s%3N)
"$uvit" train "$config" --out whole "${train[@]}" >/dev/null 2>err || fail "undisturbed: $(tail -n 3 err)"
field() { sed -E 's/.*"'"$1"'":([0-9.e-]+).*/\1/'; } # of JSON lines
training_ms=$(tail -n 1 whole/metrics.jsonl | field seconds | awk '{ printf "%d", 1000 * $1 }')
starting_ms=$(($(date +%s%3N) - start - training_ms))

# wait_for SECONDS COMMAND...: until the command succeeds or the program has ended.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do
    kill -0 "$pid" 2>/dev/null || return 1
    ((SECONDS < end)) || return 1
  done
}
events() { compgen -G 'killed/events.out.tfevents.*' | wc -l; }
trains() { (($(events) > before)); } # the new event file comes just before the first step
writes() { compgen -G 'killed/checkpoints/step-*.tmp' >/dev/null; } # a checkpoint is being written
writes_last() { compgen -G 'killed/checkpoints/step-*.tmp/state.json' >/dev/null || compgen -G 'killed/checkpoints/latest.tmp' >/dev/null; }
last_step() { tail -n 1 killed/metrics.jsonl 2>/dev/null | field step; }
gone() { (($(last_step) >= from + further)); }
sleep_ms() { sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }
# go_on STEPS: up to so many steps further in the log, and then a part of the time of two steps, so that any moment of a step is met.
go_on() {
  local from further=$((RANDOM % $1))
  from=$(last_step)
  wait_for 60 gone && sleep_ms $((RANDOM * 2 * training_ms / steps / 32768))
}
# start_up: a random part of the time that the program takes to its first step.
start_up() {
  local end=$((${EPOCHREALTIME/[.,]/} + 1000 * (RANDOM * starting_ms / 32768)))
  until trains || ((${EPOCHREALTIME/[.,]/} >= end)); do sleep 0.002; done
}

kills=0 within=0
resume=()
while ((kills < 50)); do
  before=$(events)
  "$uvit" train "$config" --out killed "${train[@]}" "${resume[@]}" >/dev/null 2>err &
  pid=$!
  disown
  case $((kills % 6)) in
    0 | 1) wait_for 60 trains && go_on 8 && wait_for 10 writes ;;
    2) wait_for 60 trains && go_on 6 && wait_for 10 writes_last ;;
    3 | 4) wait_for 60 trains && go_on 20 ;;
    *) start_up ;;
  esac
  if ! kill -9 "$pid" 2>/dev/null; then
    fail "the program ended after $kills kills: $(tail -n 1 err)"
    break
  fi
  while kill -0 "$pid" 2>/dev/null; do sleep 0.002; done
  kills=$((kills + 1))
  compgen -G 'killed/checkpoints/*.tmp' >/dev/null && within=$((within + 1))
  [ -e killed/lock ] && resume=(--resume) # before that there is no run to resume
done
echo "$steps steps in $training_ms ms after a start of $starting_ms ms; $kills kills, $within of them within the writing of a checkpoint; $(ls killed/checkpoints | tr '\n' ' ')"
((within >= 5)) || fail "only $within kills fell into the writing of a checkpoint"
succeed "trained $steps steps" "$uvit" train "$config" --out killed "${train[@]}" --resume

for file in model ema_0.995 ema_power_0.1 optimizer; do
  cmp "whole/checkpoints/step-$steps/$file.safetensors" "killed/checkpoints/step-$steps/$file.safetensors" || fail "$file differs"
done
cmp "whole/checkpoints/step-$steps/state.json" "killed/checkpoints/step-$steps/state.json" || fail "state.json differs"
cmp whole/scores.jsonl killed/scores.jsonl || fail "scores.jsonl differs"
diff -r whole/ema killed/ema >/dev/null || fail "the snapshots of the averages differ: $(diff -rq whole/ema killed/ema | head -n 3)"
without_clock() { sed -E 's/"(images_per_second|data_wait|seconds)":[^,}]*,?//g' "$1/metrics.jsonl"; }
cmp <(without_clock whole) <(without_clock killed) || fail "metrics.jsonl differs"
[ "$(wc -l <whole/metrics.jsonl)" = $((steps / 2 + steps / 6)) ] || fail "$(wc -l <whole/metrics.jsonl) lines in metrics.jsonl" # every 2nd step, and checkpoints of odd ones
seconds=$(field seconds <killed/metrics.jsonl)
[ "$seconds" = "$(sort -g <<<"$seconds")" ] || fail "the seconds of the log run backwards"
for link in latest best best_score; do
  [ "$(readlink whole/checkpoints/$link)" = "$(readlink killed/checkpoints/$link)" ] || fail "checkpoints/$link: $(readlink killed/checkpoints/$link)"
done
cmp whole/samples/step-$steps.png killed/samples/step-$steps.png || fail "the last samples differ"
[ -z "$(find killed -name '*.tmp*' -o -name '*.old')" ] || fail "remains: $(find killed -name '*.tmp*' -o -name '*.old')"
finish
