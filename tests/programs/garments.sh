# Garments, short: an autoencoder of our own learns Fashion-MNIST, a class-conditional U-ViC trains on its latents and draws the class asked for more
# often than chance. The full run is configs/fashion_mnist/latent_uvic.toml.
. "$(dirname "$0")/support.sh"
need_fashion_mnist
cd "$scratch"

# agreement COMMAND...: the class agreement that a score prints, in per cent.
agreement() { "$@" 2>"$scratch/stderr" | grep -oE '^class agreement[^=]*= [0-9.]+' | awk '{print int(100 * $NF)}'; }
# above LIMIT WHAT VALUE
above() { [ -n "$3" ] && (($3 > $1)) || fail "$2: ${3:-nothing} where more than $1 was expected ($(tail -n 2 "$scratch/stderr"))"; }

succeed 'scale factor' "$uvit" train-autoencoder fashion_mnist -o ae/autoencoder.safetensors --steps 200 --precision bf16
psnr=$(grep -oE '[0-9.]+ dB' "$scratch/stdout" | cut -d. -f1)
above 14 'PSNR in dB' "$psnr"
scale=0.5
succeed '4000 latents' "$uvit" encode fashion_mnist -o latents --autoencoder ae/autoencoder.safetensors --scale-factor "$scale" --limit 4000 --batch-size 50
short=(--set data.path=latents --set data.autoencoder=ae/autoencoder.safetensors --set "data.scale_factor=$scale" --set train.steps=400 --set train.ema_decay=0.98
  --set train.eval_every=0 --set train.sample_every=0 --set train.checkpoint_every=400 --set sample.num_steps=8)
succeed 'trained 400 steps' "$uvit" train "$source_dir/configs/fashion_mnist/latent_uvic.toml" --out classes "${short[@]}"
value=$(agreement "$uvit" score classes -n 100 --reference fashion_mnist)
echo "classes: $value %"
# ten classes by chance: 10 % with a standard deviation of 3 over 100 images; measured 31 %
above 19 'class agreement of labels' "$value"
finish
