# Latents and text from the command line: an autoencoder, encoded data and captions, a model of each, prompts, official checkpoints both ways.
. "$(dirname "$0")/support.sh"
need_fashion_mnist
cd "$scratch"

succeed 'scale factor [0-9.]+' "$uvit" train-autoencoder fashion_mnist -o ae.safetensors --steps 20 --batch-size 16 --ch 32 --ch-mult 1,1,1
encode=("$uvit" encode fashion_mnist -o latents --autoencoder ae.safetensors --limit 40 --shard-size 16 --batch-size 8 --flip)
succeed 'latents/train: 40 latents of 4 x 7 x 7 and their mirrored images' "${encode[@]}"
scale=$(grep -o '"scale_factor": [0-9.]*' latents/train/latents.json | grep -o '[0-9.]*$')
rm latents/train/latents-00001.safetensors
sed -i 's/"mean": \[[^]]*\]/"mean": []/; s/"std": \[[^]]*\]/"std": []/' latents/train/latents.json
tr -d '\n' <latents/train/latents.json >flat && sed -E 's/"(mean|std)": \[[^]]*\]/"\1": []/g' flat >latents/train/latents.json
succeed '40 latents' "${encode[@]}"
expect 1 'another autoencoder|scale factor' "${encode[@]}" --scale-factor 0.5
succeed '40 images' "$uvit" data latents --data-path latents
succeed 'contact sheet of 20 images' "$uvit" data fashion_mnist --sheet sheet.png --rows 2 --columns 10
[ -s sheet.png ] || fail "no contact sheet"

latent=("${tiny[@]}" --set data.dataset=latents --set data.path=latents --set data.channels=4 --set data.image_size=7 --set model.patch_size=1
  --set data.autoencoder=ae.safetensors --set "data.scale_factor=$scale")
succeed 'trained 6 steps' "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" --out run "${latent[@]}"
expect 1 'data.scale_factor' "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" --out other "${latent[@]}" --set data.scale_factor=0.18215
succeed 'grid: latent.png' "$uvit" sample run --out latent.png --grid 1x2
expect 1 'no context tokens' "$uvit" sample run --prompt "a bag"

mkdir clip && cp "$source_dir/tests/fixtures/clip_text_state.safetensors" clip/model.safetensors
echo '{"num_attention_heads": 4}' >clip/config.json
echo '{"bag</w>": 1, "coat</w>": 2, "<|startoftext|>": 4, "<|endoftext|>": 5}' >clip/vocab.json
echo '#version: 0.2' >clip/merges.txt
for i in $(seq 0 39); do ((i % 2)) && echo "$i	bag" || echo "$i	coat"; done >captions.txt
expect 1 "no token" "$uvit" encode-text captions.txt -o latents/train --text-encoder clip --vocabulary clip --tokens 4
sed -i 's/"bag<\/w>"/"b": 8, "a": 9, "c": 10, "o": 11, "g<\/w>": 12, "t<\/w>": 13, "bag<\/w>"/' clip/vocab.json
for split in train test; do
  succeed '40 captions' "$uvit" encode-text captions.txt -o latents/$split --text-encoder clip --vocabulary clip --tokens 4
done
text=("${latent[@]}" --set data.num_classes=0 --set model.context_dim=32 --set model.context_tokens=4 --set data.text_encoder=clip --set data.vocabulary=clip)
succeed 'trained 6 steps' "$uvit" train "$source_dir/configs/fashion_mnist/uvic.toml" --out text "${text[@]}"
succeed '4 images' "$uvit" sample text --prompt bag --prompt coat -n 4 --guidance-scale 2 --out text.png
printf 'bag\ncoat\n' >prompts.txt
succeed 'grid: file.png' "$uvit" sample text --prompts prompts.txt --grid 2x1 --out file.png
expect 1 'give --prompt' "$uvit" sample text

official=$source_dir/tests/fixtures/optim_default_20.ckpt
cat >official.toml <<'END'
[model]
patch_size = 2
embed_dim = 32
depth = 2
num_heads = 4
[data]
image_size = 8
channels = 3
[train]
batch_size = 4
END
expect 2 '--config' "$uvit" convert "$official" imported
succeed 'at step 20' "$uvit" convert "$official" imported --config official.toml
succeed 'at step 20' "$uvit" convert imported back.ckpt
for file in nnet nnet_ema; do
  succeed 'tensors' "$uvit" convert "back.ckpt/$file.pth" "$file.safetensors"
  succeed 'tensors' "$uvit" convert "$official/$file.pth" "$file-official.safetensors"
  cmp -s "$file.safetensors" "$file-official.safetensors" || fail "$file differs after going through a run"
done
succeed 'step +20' "$uvit" info imported
finish
