# Packed shards: a training from them is the training from the folder bit for bit; what is missing, cut or altered is named; other programs read them.
. "$(dirname "$0")/support.sh"
need_fashion_mnist
cd "$scratch"
export OMP_NUM_THREADS=1

# Shards of Fashion-MNIST are PNGs; unpacked, their files make the same data as a folder.
succeed 'shards/train: 40 images, 10 classes.* in [2-9] shards' "$uvit" pack fashion_mnist -o shards --limit 40 --shard-size 0.02
succeed 'shards/test: 40 samples .*as they were packed' "$uvit" pack --verify shards
expect 1 'shards is there already' "$uvit" pack fashion_mnist -o shards
for split in train test; do
  mkdir -p unpacked
  for tar in "shards/$split"/*.tar; do tar xf "$tar" -C unpacked || fail "tar cannot unpack $tar"; done
  for class in unpacked/*.cls; do
    folder=tree/$split/class$(cat "$class")
    mkdir -p "$folder" && mv "${class%.cls}.png" "$folder/"
  done
  rm -r unpacked
done
[ "$(find tree -name '*.png' | wc -l)" = 80 ] || fail "not every image was unpacked"
printf 'a picture' >tree/train/class0/caption.txt
mv tree/train/class0/caption.txt "$(ls tree/train/class0/*.png | head -n 1 | sed 's/png$/txt/')"
succeed 'packed/train: 40 images, 10 classes, 1 captions' "$uvit" pack tree -o packed --threads 2
succeed 'again/test: 40 images' "$uvit" pack tree -o again --threads 1
diff -r packed again || fail "packing twice gives different bytes"
succeed 'train: 40 images' "$uvit" data shards --data-path packed --channels 1 --image-size 28

# The same training from the folder, the shards and the shards without their index.
cp -r packed plain
rm plain/*/index.json
train_on() { tiny_train "run-$1" --set data.dataset="$2" --set data.path="$1" --set train.steps=4 --set data.workers="$3" >/dev/null 2>err || fail "training on $1: $(tail -n 3 err)"; }
train_on tree folder 1
train_on packed shards 4
train_on plain shards 2
for run in packed plain; do
  for file in model ema_0.995 optimizer; do
    cmp "run-tree/checkpoints/latest/$file.safetensors" "run-$run/checkpoints/latest/$file.safetensors" || fail "training from $run differs from the folder's"
  done
done

# Faults. The second shard of a set of small ones.
small=(--set data.dataset=shards --set data.path=shards)
second=shards/train/00001.tar
size=$(stat -c %s "$second")
cp "$second" whole.tar
rm "$second"
expect 1 '00001.tar is missing.*copy it again' tiny_train run "${small[@]}"
head -c $((size - 700)) whole.tar >"$second"
expect 1 "00001.tar is truncated: expected $size bytes, found $((size - 700)).*copy it again" tiny_train run "${small[@]}"
cp whole.tar "$second"
printf 'XXXX' | dd of="$second" bs=1 seek=600 conv=notrunc 2>/dev/null # in the first image
expect 1 '00001.tar\[0\] is damaged at byte 512.*checksum' tiny_train damaged "${small[@]}"
expect 1 '00001.tar is damaged: its SHA-256' "$uvit" pack --verify shards
tiny_train skipping "${small[@]}" --set data.on_error=skip >/dev/null 2>err || fail "a damaged sample cannot be left out: $(tail -n 3 err)"
grep -q 'left out: .*00001.tar\[0\] is damaged' err || fail "the damaged sample is not named: $(cat err)"
cp whole.tar "$second"
printf 'XXXX' | dd of="$second" bs=1 seek=4 conv=notrunc 2>/dev/null # in the header before it
expect 1 '00001.tar\[0\].*no tar header' tiny_train header "${small[@]}"
rm shards/train/index.json
expect 1 '00001.tar is damaged at byte 0: it is no tar header' tiny_train run "${small[@]}"
cp whole.tar "$second"
rm -r run 2>/dev/null
tiny_train run "${small[@]}" >/dev/null 2>err || fail "mended shards: $(tail -n 3 err)"

# An unreadable image among many: named when it is packed, or left out.
image=$(find tree/train -name '*.png' | sort | sed -n 7p)
head -c 100 "$image" >cut.png && mv cut.png "$image"
expect 1 "$(basename "$image").*--skip-broken" "$uvit" pack tree -o refused
[ -e refused ] && fail "a refused packing left a folder"
ls -d refused.tmp* 2>/dev/null && fail "a refused packing left its temporary folder"
succeed 'skipped/train: 39 images.*1 broken images left out' "$uvit" pack tree -o skipped --skip-broken
expect 1 'nowhere.* neither a folder' "$uvit" pack nowhere -o x
expect 2 'give the folder to write' "$uvit" pack tree
(
  failures=0
  ulimit -f 8
  expect 1 '(large|space)' "$uvit" pack fashion_mnist -o full --limit 100
  exit $failures
) || failures=$((failures + $?))
ls -d full* 2>/dev/null && fail "a full disk left a folder"
finish
