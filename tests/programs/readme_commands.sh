# Runs the README's commands in order, as a reader would, in a copy that shares this build: every ```sh block after a line "<!-- tested -->".
# The main job is the same script with fewer steps; what installs and the whole test suite are left out.
. "$(dirname "$0")/support.sh"
need_fashion_mnist
cd "$scratch"
mkdir -p work/build && cd work
ln -s "$source_dir"/{configs,assets,tests,tools,src,kernels} .
ln -s "$uvit" build/uvit

awk '/^<!-- tested -->$/ {wanted = 1; next} /^```sh$/ && wanted {inside = 1; next} /^```$/ {inside = 0; wanted = 0} inside' "$source_dir/README.md" >commands
[ "$(wc -l <commands)" -ge 8 ] || fail "the README has only $(wc -l <commands) tested commands"
[ -e "$source_dir/.venv" ] || { echo "SKIPPED: the main job needs .venv"; exit 0; }
short=(--set train.steps=120 --set train.eval_every=60 --set train.checkpoint_every=60 --set train.sample_every=60 --images 100)
"$source_dir/tools/quickstart.sh" --out "$PWD/runs/quickstart" "${short[@]}" >quickstart.log 2>&1 || fail "quickstart: $(tail -n 5 quickstart.log)"
grep -q '| U-ViC (cog in 3 of 5 blocks) | 120 ' quickstart.log || fail "no table: $(tail -n 8 quickstart.log)"
for model in uvit uvic; do [ -s "runs/quickstart/$model.png" ] || fail "no grid of $model"; done
while IFS= read -r command; do
  case "$command" in '' | '#'* | *tools/quickstart.sh* | *tools/test.sh* | *tools/setup.sh*) continue ;; esac
  echo "+ $command"
  bash -c "$command" >log 2>&1 || fail "$command: $(tail -n 3 log)"
done <commands
finish
