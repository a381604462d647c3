# What the program's commands print and write when all goes well.
. "$(dirname "$0")/support.sh"
cd "$scratch"

succeed '^uvit [0-9.]+' "$uvit" --version
succeed 'LibTorch 2' "$uvit" --version
succeed 'CUDA: ' "$uvit" --version
succeed 'CPU: ' "$uvit" --version
succeed 'train.*' "$uvit" --help
for command in train sample film edit interpolate likelihood evaluate fid fid-stats compare report info convert list; do succeed "^Usage: .*$command" "$uvit" "$command" --help; done
for row in softmax cog vp_linear vp_cosine edm flow min_snr logit_normal karras dpm_solver_pp_2m unipc ddim euler_ode euler_maruyama_sde fashion_mnist cifar10 folder fmnist-cnn; do
  succeed "^  $row " "$uvit" list
done
succeed 'train.steps' "$uvit" train --help-keys
for config in "$source_dir"/configs/*/*.toml; do succeed '^parameters' "$uvit" info "$config"; done
succeed '^parameters +44255328$' "$uvit" info "$source_dir/configs/cifar10/uvit_small.toml"

# Official weights, and the way there and back.
for from in "$source_dir"/tests/fixtures/uvit_cond_nnet.pth "$source_dir"/tests/fixtures/uvit_cond_state.safetensors; do
  succeed 'tensors' "$uvit" convert "$from" a.safetensors
  succeed 'tensors' "$uvit" convert a.safetensors b.pth
  succeed 'tensors' "$uvit" convert b.pth c.safetensors
  succeed 'tensors' "$uvit" convert c.safetensors d.pth
  cmp -s b.pth d.pth || fail "converting $from there and back changed it"
done

need_fashion_mnist
tiny_train run >out 2>err || fail "training: $(tail -n 3 err)"
grep -q 'trained 6 steps' out || fail "no summary: $(cat out)"
for file in config.toml metrics.jsonl checkpoints/step-6/model.safetensors checkpoints/step-6/state.json checkpoints/latest checkpoints/best; do
  [ -e "run/$file" ] || fail "run/$file is missing"
done
succeed '^step +6' "$uvit" info run
succeed 'in\.0 +softmax' "$uvit" info run
succeed '^grid: ' "$uvit" sample run --out all.png --images all --npz all.npz -n 10
[ "$(ls all | wc -l)" = 10 ] || fail "10 images expected in all/"
[ -s all.npz ] || fail "no all.npz"

# An image depends on its seed alone: drawn with others, alone, and in another place of the batch it is the same file.
succeed . "$uvit" sample run --out one.png --images one -n 1 --seed 7 --class 7
succeed . "$uvit" sample run --out some.png --images some -n 3 --seed 6 --class 6,7,8
cmp all/seed-000007-class-7.png one/seed-000007-class-7.png || fail "image 7 differs when drawn alone"
cmp all/seed-000007-class-7.png some/seed-000007-class-7.png || fail "image 7 differs when drawn among others"
succeed . "$uvit" sample run --out named.png --class Bag --grid 1x2 --guidance-scale 3 --solver ddim --num-steps 2

# What else is drawn from a model.
succeed '^animation: ' "$uvit" film run -n 2 --frames 3 --num-steps 3 --out film.png --animation film.apng
# An adaptive solver calls the network more often for one image than for another: the shorter film stands still at its end.
succeed '^animation: ' "$uvit" film run -n 4 --frames 1000 --solver dpm_solver_adaptive --batch-size 1 --set sample.tolerance=0.0001 --guidance-scale 60 --out film.png \
  --animation film.apng
succeed '9 variations' "$uvit" edit run --image all/seed-000003-class-3.png --num-steps 3 --out edit.png
succeed 'paintings' "$uvit" edit run --image all/seed-000003-class-3.png --mask all/seed-000007-class-7.png -n 2 --num-steps 3 --out edit.png
succeed '^interpolation.png: 4 images' "$uvit" interpolate run --seeds 1,2 --classes Bag,3 --frames 4 --num-steps 2
succeed '^bits/dim@4 = [0-9.]+ ' "$uvit" likelihood run -n 4 --num-steps 2
succeed 'eta 1.0' "$uvit" evaluate run -n 10 --agreement 0 --solver ddim --num-steps 2 --set sample.eta=1
grep -q 'no effect' "$scratch/stderr" && fail "a warning of a key that ddim goes by"
succeed . "$uvit" sample run --out named.png --class Bag --grid 1x2 --solver unipc --num-steps 2 --set sample.eta=1
grep -q 'sample.eta = 1.0 has no effect: unipc does not go by it' "$scratch/stderr" || fail "no warning of a key without effect"
succeed 'guide ema' "$uvit" evaluate run -n 10 --agreement 0 --num-steps 2 --guidance-scale 2 --guide run/checkpoints/step-3
drawn=$("$uvit" evaluate run -n 10 --bootstrap 0 --images drawn 2>/dev/null | sed -n 's/^FD.*@10 = \([^ ]*\) .*/\1/p')
[ "$(ls drawn | wc -l)" = 10 ] || fail "evaluate --images: 10 images expected"
succeed '^held-out loss 2/2@[0-9]+ = [0-9.]+ ' "$uvit" evaluate run -n 2 --agreement 0 --bootstrap 0 --loss-levels 2
rm run/scores.jsonl

succeed '^FD\[fmnist-cnn\]@10 = [0-9.e+]+ \[[0-9.e+]+, [0-9.e+]+\] ' "$uvit" evaluate run -n 10 --agreement 10
[ "$(wc -l <run/scores.jsonl)" = 2 ] || fail "two scores expected in scores.jsonl"
succeed 'FD\[fmnist-cnn\]@10 = .*\| +[0-9.]+ % of 10' "$uvit" report run

# Folders, .npz of images, statistics, datasets and checkpoints are sides of a comparison, and the same images give the same distance.
succeed '^FD\[fmnist-cnn\]@10 = .*preprocess ' "$uvit" fid all fashion_mnist:test --limit 10 --save all_statistics.npz
succeed '^FD\[fmnist-cnn\]@10 = (0 |-?0\.0000|-?[0-9.]+e-)' "$uvit" fid all_statistics.npz all
succeed '^FD\[fmnist-cnn\]@10 = (0 |-?0\.0000|-?[0-9.]+e-)' "$uvit" fid all.npz all
succeed "^FD\[fmnist-cnn\]@10 = $drawn " "$uvit" fid run fashion_mnist -n 10
succeed "^FD\[fmnist-cnn\]@10 = $drawn " "$uvit" fid drawn fashion_mnist
succeed '^train.npz: mean and covariance of 64 features of 50 images of fashion_mnist:train \(28 x 28 grey\)' \
  "$uvit" fid-stats "$source_dir/configs/fashion_mnist/uvic.toml" -o train.npz --limit 50
succeed '^FD\[fmnist-cnn\]@10 = .*reference_images 50' "$uvit" fid all.npz train.npz
succeed '^KID\[fmnist-cnn\]@10 = ' "$uvit" fid all fashion_mnist:test --limit 60 --metrics kid,prdc,is --memorisation nearest.png --floor
grep -q '^coverage floor\[fmnist-cnn\]@10\|^coverage\[fmnist-cnn\] floor@10' stdout || fail "no floor of coverage: $(cat stdout)"
[ -s nearest.png ] || fail "no picture of the nearest images"
expect 1 'needs the images' "$uvit" fid all.npz train.npz --metrics kid

# Runs side by side.
tiny_train twin --set model.attention='["softmax"]' >/dev/null 2>err || fail "training: $(tail -n 3 err)"
expect 1 'uvit evaluate twin' "$uvit" compare run twin
succeed . "$uvit" evaluate twin -n 10 --agreement 10
succeed '^FD\[fmnist-cnn\]@10 +twin +1 .*(yes|no)$' "$uvit" compare run twin
grep -q '^note: .*model.attention' stdout || fail "compare does not say what differs: $(cat stdout)"
succeed '^\| FD' "$uvit" compare run twin --format markdown
succeed '"difference"' "$uvit" compare run twin --format json --metrics FD
succeed '^metric,runs,seeds' "$uvit" compare run twin --format csv

# Averages of any length, from the snapshots that a training left.
tiny_train lengths --set "train.ema_power=[0.05, 0.1]" --set train.checkpoint_every=1 --set train.keep_checkpoints=1 >/dev/null 2>err ||
  fail "training: $(tail -n 3 err)"
succeed '^length.safetensors: EMA of relative length 0.15 at step 6, from 12 snapshots' "$uvit" ema lengths --length 0.15 -o length.safetensors
succeed '^grid: ' "$uvit" sample length.safetensors --config lengths/config.toml -n 2 --grid 1x2 --out length.png
expect 1 'at step 999 cannot be made of these snapshots; there are some of steps 1, 2, 3, 4, 5, 6' "$uvit" ema lengths --length 0.15 --step 999 -o none.safetensors
expect 2 'step' "$uvit" ema lengths --length 0.15 --step -4 -o none.safetensors
expect 1 'train.ema_power' "$uvit" ema run --length 0.1 -o none.safetensors
expect 1 '0.2887' "$uvit" ema lengths --length 0.4 -o none.safetensors

# The weights of a run leave as one file and are the same model.
succeed 'tensors' "$uvit" convert run weights.pth
succeed . "$uvit" sample weights.pth --config run/config.toml --out again.png --images again -n 10
cmp all/seed-000003-class-3.png again/seed-000003-class-3.png || fail "the converted weights draw another image"

# Stopped and resumed, the run is the run that was not.
tiny_train halves --set train.steps=3 >/dev/null 2>err || fail "first half: $(tail -n 3 err)"
tiny_train halves --resume >/dev/null 2>err || fail "second half: $(tail -n 3 err)"
for file in model ema_0.995 optimizer; do
  cmp "run/checkpoints/step-6/$file.safetensors" "halves/checkpoints/step-6/$file.safetensors" || fail "resuming changed $file"
done

# SIGTERM saves and ends cleanly.
run_as=exec tiny_train stopped --set train.steps=100000 >out 2>err & # exec: the signal is for the program, not for a shell around it
pid=$!
for ((i = 0; i < 300; ++i)); do [ -e stopped/checkpoints/latest ] && break; sleep 0.1; done
kill -TERM $pid
wait $pid || fail "SIGTERM: exit code $? ($(tail -n 3 err))"
grep -q '^go on with: ' out || fail "no word how to go on: $(cat out)"
finish
