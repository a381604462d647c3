"""The data loader beside torchvision's: ImageFolder + DataLoader with Pillow, on one folder of JPEGs, the same work on both sides, in turn.

Run by tools/bench/data.sh. Work of an image: decode, scale the shorter side to 64 pixels, cut the centre, mirror at random, [-1, 1] in float [3, 64, 64]; batches of
64 in a random order; two workers. Pictures are Fashion-MNIST's, enlarged to 224 to 320 pixels a side and coloured, with a texture that keeps files as large as
photographs' (quality 90). Both sides read from the page cache. "scaled" is data.jpeg_scaling: other pixels than torchvision's.
"""
import argparse
import datetime
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision import transforms

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("UVIT_BUILD", ROOT / "build"))
GARMENTS = Path("/usr/share/datasets/fashion-mnist")
SIDE, BATCH, WORKERS = 64, 64, 2


def make_folder(folder, count):
    """Deterministic JPEGs in ten class folders. @return their mean size in bytes"""
    with gzip.open(GARMENTS / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * count)[16:], np.uint8).reshape(-1, 28, 28)
    with gzip.open(GARMENTS / "train-labels-idx1-ubyte.gz") as file:
        labels = file.read(8 + count)[8:]
    random = np.random.RandomState(0)
    total = 0
    for i, (image, label) in enumerate(zip(images, labels)):
        size = tuple(int(side) for side in random.randint(224, 321, 2))
        grey = np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC), np.float32)[..., None] / 255
        texture = np.asarray(Image.fromarray(random.randint(0, 256, (size[1] // 2, size[0] // 2)).astype(np.uint8)).resize(size, Image.BILINEAR), np.float32)
        front, back = random.rand(3) * 255, random.rand(3) * 255
        colour = grey * front + (1 - grey) * back + 0.15 * (texture[..., None] - 128)
        path = folder / f"class{label}" / f"{i:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(colour.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        total += path.stat().st_size
    return total / len(images)


def cpu_seconds():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def run_torchvision(folder):
    steps = [transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    data = torchvision.datasets.ImageFolder(folder, transforms.Compose(steps))
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True)
    cpu, start = cpu_seconds(), 0.0
    for images, _ in loader:
        start = start or time.perf_counter()  # when the workers have started
        assert images.shape == (BATCH, 3, SIDE, SIDE)
    seconds = time.perf_counter() - start
    batches = len(loader)
    del loader  # waits for the workers, whose time counts then
    return {"images_per_second": (batches - 1) * BATCH / seconds, "cpu_ms_per_image": 1000 * (cpu_seconds() - cpu) / (batches * BATCH)}


def run_ours(dataset, path, batches, *options):
    command = [BUILD / "tools/bench/bench_data", dataset, path, "--batches", batches, "--batch-size", BATCH, "--image-size", SIDE, "--workers", WORKERS, *options]
    assert batches > 8, "too few images: the loader's first batches are not counted"
    return json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not GARMENTS.exists():
        sys.exit("bench: install Debian's package dataset-fashion-mnist")
    batches = options.images // BATCH  # an epoch
    with tempfile.TemporaryDirectory() as name:
        folder, packed, small = Path(name) / "jpegs", Path(name) / "packed", Path(name) / "small"
        folder.mkdir()
        size = make_folder(folder, options.images)
        pack = [str(BUILD / "uvit"), "pack", str(folder), "-o"]
        subprocess.run([*pack, str(packed)], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*pack, str(small), "--image-size", str(SIDE)], check=True, stdout=subprocess.DEVNULL)
        print(f"{datetime.date.today()}, torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}; {options.images} JPEGs of "
              f"{size / 1024:.1f} KiB; {options.rounds} rounds of {batches} batches of {BATCH}, {WORKERS} workers, load {os.getloadavg()[0]:.1f}")
        sides = {
            "torchvision, folder": lambda: run_torchvision(folder),
            "uvit, folder": lambda: run_ours("folder", folder, batches),
            "uvit, folder, scaled": lambda: run_ours("folder", folder, batches, "--jpeg-scaling"),
            "uvit, shards": lambda: run_ours("shards", packed, batches),
            f"uvit, shards of {SIDE} x {SIDE}": lambda: run_ours("shards", small, batches),
        }
        results = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, run in sides.items():
                results[name].append(run())
    base = results["torchvision, folder"]
    for name, runs in results.items():
        rates, cpu = [r["images_per_second"] for r in runs], [r["cpu_ms_per_image"] for r in runs]
        ratio = statistics.median(a["images_per_second"] / b["images_per_second"] for a, b in zip(runs, base))
        ratio_cpu = statistics.median(b["cpu_ms_per_image"] / a["cpu_ms_per_image"] for a, b in zip(runs, base))
        print(f"  {name:<24} {statistics.median(rates):8.0f} images/s ({min(rates):.0f} to {max(rates):.0f}), {ratio:5.2f} x;"
              f"  {statistics.median(cpu):.3f} CPU ms an image ({min(cpu):.3f} to {max(cpu):.3f}), {ratio_cpu:5.2f} x")


if __name__ == "__main__":
    main()
