# Each wrong input ends in one clear line and exit code 1 (2 for a wrong command line), with nothing half-written.
. "$(dirname "$0")/support.sh"
cd "$scratch"
config=$source_dir/configs/fashion_mnist/uvit.toml
state=$source_dir/tests/fixtures/uvit_cond_state.safetensors

# The command line.
expect 2 "did you mean 'train'" "$uvit" trian
expect 2 'subcommand' "$uvit"
expect 2 'CHECKPOINT' "$uvit" sample
expect 2 '--grdi' "$uvit" sample x --grdi 2x2
expect 2 'CONFIG.toml' "$uvit" train
expect 2 'ROWSxCOLUMNS|grid' "$uvit" sample "$state" --config "$config" --grid 2by2

# Configurations.
expect 1 'nowhere.toml.*(no such|not found|missing|cannot)' "$uvit" train nowhere.toml
expect 1 "did you mean '(model.)?embed_dim'" "$uvit" info "$config" --set model.embed_dmi=64
expect 1 "did you mean '?\[?model" "$uvit" info "$config" --set modle.embed_dim=64
expect 1 "did you mean 'cog'" "$uvit" info "$config" --set model.attention=cgo
expect 1 "did you mean 'vp_linear'" "$uvit" train "$config" --out run --set diffusion.schedule=vp_liner
expect 1 "did you mean 'fashion_mnist'" "$uvit" train "$config" --out run --set data.dataset=fashion_mnits
expect 1 'train.steps.*integer' "$uvit" info "$config" --set train.steps=many
expect 1 'train.steps' "$uvit" info "$config" --set train.steps=-3
expect 1 'num_heads' "$uvit" info "$config" --set model.num_heads=7
expect 1 'patch_size' "$uvit" info "$config" --set model.patch_size=5
expect 1 'attention.*5' "$uvit" info "$config" --set 'model.attention=["cog","cog"]'
expect 1 'section.key=value|=' "$uvit" info "$config" --set model.depth
printf '[model]\ndepth = = 3\n' >broken.toml
expect 1 'broken.toml:2' "$uvit" info broken.toml
printf '[model]\ndepth = 4\nwidht = 3\n' >unknown.toml
expect 1 'unknown.toml:3.*widht' "$uvit" info unknown.toml
[ -e run ] && fail "a refused training left a run folder"

# Data.
expect 1 '/nowhere/.*install' "$uvit" train "$config" --out run --set data.path=/nowhere
mkdir -p idx images/a
for file in train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do printf 'x' >"idx/$file"; done
expect 1 'train-images-idx3-ubyte.*(truncated|bytes|magic)' "$uvit" train "$config" --out run --set data.dataset=idx --set data.path=idx
head -c 1000 /dev/urandom >images/a/broken.png
expect 1 'broken.png' "$uvit" train "$config" --out run --set data.dataset=folder --set data.path=images --set data.num_classes=0 --set diffusion.label_dropout=0 --set sample.guidance_scale=1
cp "$source_dir/tests/fixtures/fid_png_A/0.png" images/a/broken.png
expect 1 'broken.png.*fewer than the 1024' "$uvit" train "$config" --out run --set data.dataset=folder --set data.path=images --set data.num_classes=0 \
  --set diffusion.label_dropout=0 --set sample.guidance_scale=1 --set data.image_size=1024
expect 1 "'nowhere' is no folder" "$uvit" fid nowhere fashion_mnist
mkdir empty
expect 1 'empty' "$uvit" fid empty fashion_mnist

# Checkpoints.
expect 1 'no such|not found|missing' "$uvit" sample nowhere
expect 1 'empty.*(checkpoint|run)' "$uvit" sample empty
expect 1 '--config|config' "$uvit" sample "$state"
expect 1 '(shape|\[).*\[' "$uvit" sample "$state" --config "$config"
head -c 3000 "$state" >short.safetensors
expect 1 'short.safetensors' "$uvit" sample short.safetensors --config "$config"
head -c 3000 "$source_dir/tests/fixtures/uvit_cond_nnet.pth" >short.pth
expect 1 'short.pth' "$uvit" sample short.pth --config "$config"
echo 'no weights' >text.pth
expect 1 'text.pth' "$uvit" convert text.pth text.safetensors
expect 2 'text.onnx' "$uvit" convert "$state" text.onnx
[ -e text.safetensors ] && fail "a refused conversion left a file"
echo 'no archive' >broken.npz
expect 1 'broken.npz' "$uvit" fid broken.npz broken.npz
expect 1 'report|no such|checkpoint' "$uvit" report nowhere

# Places that cannot be written.
expect 1 'unwritable|cannot|no such|not a directory' "$uvit" convert "$state" /proc/nowhere/x.safetensors
(
  failures=0
  ulimit -f 8 # blocks of 1024 bytes
  expect 1 'x.safetensors.*(large|space)' "$uvit" convert "$state" x.safetensors
  exit $failures
) || failures=$((failures + $?))
[ -z "$(ls | grep '^x\.safetensors')" ] || fail "a failed conversion left $(ls | grep '^x\.')"

need_fashion_mnist
tiny_train run >/dev/null 2>err || fail "training: $(tail -n 3 err)"
expect 1 'resume' tiny_train run
expect 1 'model.depth|depth' tiny_train run --resume --set model.depth=4
expect 1 'out of range|0 to 9' "$uvit" sample run --class 10
expect 1 "did you mean 'Bag'" "$uvit" sample run --class Bog
expect 1 "did you mean 'ddim'" "$uvit" sample run --solver ddmi
expect 1 "did you mean 'fmnist-cnn'" "$uvit" evaluate run --metric fmnist-cn
expect 1 'guidance' "$uvit" sample run --guidance-scale -1
expect 1 'grid|png|no such|cannot' "$uvit" sample run -n 1 --out /proc/nowhere/grid.png

# Damage to a checkpoint is found and named.
cp -r run damaged
printf '\xff' | dd of=damaged/checkpoints/step-6/ema_0.995.safetensors bs=1 seek=4000 conv=notrunc 2>/dev/null
expect 1 'ema_0.995.safetensors' "$uvit" sample damaged
cp -r run foreign
echo '{"hello": 1}' >foreign/checkpoints/step-6/state.json
expect 1 'state.json' "$uvit" sample foreign

# A loss that is not finite stops with the step; the last good checkpoint stays.
expect 1 'step [0-9]+.*(checkpoint|step-)' tiny_train diverged --set optimizer.lr=1e30 --set train.steps=50 --set optimizer.clip_grad_norm=0 --set train.checkpoint_every=1
ls diverged/checkpoints | grep -q tmp && fail "a half-written checkpoint is left"

# No space: the checkpoint fails, nothing half-written stays, earlier checkpoints do.
(
  failures=0
  ulimit -f 200
  expect 1 '(large|space)' tiny_train full --set model.embed_dim=64
  exit $failures
) || failures=$((failures + $?))
ls full/checkpoints 2>/dev/null | grep -q . && fail "a failed checkpoint left $(ls full/checkpoints)"
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=200k tmpfs small 2>/dev/null; then
  expect 1 'space' tiny_train small/run --set model.embed_dim=64
  ls small/run/checkpoints 2>/dev/null | grep -q . && fail "a full disk left $(ls small/run/checkpoints)"
  umount small
fi
finish
