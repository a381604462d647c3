"""The evaluation beside pytorch-fid and torch-fidelity: same images, same random weights, in turn. Times are CPU seconds at one thread.

Run by tools/bench/fid.sh. Weights are drawn once (the published ones would do as well: time does not depend on them).
"""
import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
os.environ.update(ONE_THREAD)

import numpy as np
import scipy.linalg
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"


def official_network():
    """pytorch-fid's patched Inception, before any weights are read."""
    from pytorch_fid import inception

    net = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    net.Mixed_5b = inception.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c = inception.FIDInceptionA(256, pool_features=64)
    net.Mixed_5d = inception.FIDInceptionA(288, pool_features=64)
    for name, channels in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        setattr(net, "Mixed_6" + name, inception.FIDInceptionC(768, channels_7x7=channels))
    net.Mixed_7b = inception.FIDInceptionE_1(1280)
    net.Mixed_7c = inception.FIDInceptionE_2(2048)
    return net


def random_weights(path):
    torch.manual_seed(0)
    state = official_network().state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight") or name == "fc.weight":
            value.uniform_(-1, 1).mul_((6.0 / value[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            value.uniform_(1, 1.5)
        elif name.endswith("bn.weight"):
            value.uniform_(0.9, 1.1)
        elif value.is_floating_point():
            value.uniform_(-0.1, 0.1)
    torch.save(state, path)


def least(rounds, work):
    work()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def ours(*arguments):
    command = [ROOT / "build/tools/bench/bench_fid", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def median(values):
    return sorted(values)[len(values) // 2]


def bench_features(folder, count, rounds):
    from pytorch_fid.inception import InceptionV3
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    images = np.random.RandomState(1).randint(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    np.savez(folder / "images.npz", images=images)
    pytorch_fid = InceptionV3([3]).eval()
    fidelity = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(folder / WEIGHTS)).eval()
    batches = torch.from_numpy(images).split(32)
    results = {"pytorch-fid": [], "torch-fidelity": [], "uvit": [], "uvit bf16": []}
    with torch.no_grad():
        reference = torch.cat([pytorch_fid(b.float() / 255)[0].flatten(1) for b in batches]).numpy()
        for _ in range(rounds):
            results["pytorch-fid"].append(1000 / count * least(1, lambda: [pytorch_fid(b.float() / 255) for b in batches]))
            results["uvit"].append(ours("--rounds", 1, "features", folder / WEIGHTS, folder / "images.npz", "--output", folder / "f.npz")["ms_per_image"])
            results["torch-fidelity"].append(1000 / count * least(1, lambda: [fidelity(b) for b in batches]))
            results["uvit bf16"].append(
                ours("--rounds", 1, "features", folder / WEIGHTS, folder / "images.npz", "--precision", "bf16")["ms_per_image"])
    error = np.abs(np.load(folder / "f.npz")["features"] - reference).max() / np.abs(reference).max()
    print(f"features, {count} images of 32 x 32, batches of 32: largest difference {error:.2g} of the largest feature")
    for name, times in results.items():
        print(f"  {name:<15} {median(times):7.1f} ms an image ({min(times):.1f} to {max(times):.1f})"
              f"  {median(results['pytorch-fid']) / median(times):.2f} x pytorch-fid")


def bench_frechet(folder, dims, rounds):
    from pytorch_fid.fid_score import calculate_frechet_distance

    random = np.random.RandomState(2)
    mixing = np.linalg.qr(random.randn(dims, dims))[0]
    sides = []
    for name, images, scale in (("a", 5000, 1.0), ("b", 6000, 1.1)):
        x = random.randn(images, dims) * np.logspace(0, -2.5, dims) @ mixing * scale + 0.01 * scale
        sides += [x.mean(0), np.cov(x, rowvar=False)]
        np.savez(folder / f"{name}.npz", mu=sides[-2], sigma=sides[-1])
    times = {"scipy": [], "uvit": []}
    for _ in range(rounds):
        start = time.process_time()
        official = calculate_frechet_distance(*sides)
        times["scipy"].append(time.process_time() - start)
        result = ours("--rounds", 1, "frechet", folder / "a.npz", folder / "b.npz")
        times["uvit"].append(result["seconds"])
    print(f"Frechet distance, {dims} dimensions: pytorch-fid with scipy {median(times['scipy']):.2f} s, uvit {median(times['uvit']):.2f} s, "
          f"{median(times['scipy']) / median(times['uvit']):.1f} x; values differ by {abs(result['value'] / official - 1):.1g}")


def child_seconds(command, environment):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.time()
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    wall = time.time() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, output.strip().splitlines()[-1]


def bench_end_to_end(folder, count):
    random = np.random.RandomState(3)
    for side, images in (("A", count), ("B", 64)):
        (folder / side).mkdir()
        for i in range(images):
            Image.fromarray(random.randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(folder / side / f"{i}.png")
    environment = {**os.environ, **ONE_THREAD}
    official = [sys.executable, "-m", "pytorch_fid", folder / "A", folder / "B", "--device", "cpu", "--num-workers", "1"]
    uvit = [ROOT / "build/uvit", "fid", folder / "A", folder / "B", "--network", "inception", "--inception", folder / WEIGHTS, "--any-weights"]
    print(f"end to end, folders of {count} and 64 PNGs:", flush=True)
    base = None
    for name, command in (("pytorch-fid", official), ("uvit", uvit), ("uvit bf16", uvit + ["--network-precision", "bf16"])):
        cpu, wall, line = child_seconds(list(map(str, command)), environment)
        base = base or cpu
        print(f"  {name:<15} {cpu:8.1f} CPU s, {wall:8.1f} s by the clock, {base / cpu:.2f} x; {line.split('(')[0]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64, help="images that features are timed on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--end-to-end", type=int, default=0, metavar="N", help="also whole runs over a folder of N images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{datetime.date.today()}, torch {torch.__version__}, scipy {scipy.__version__}, one thread, CPU time")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TORCH_HOME"] = name  # pytorch-fid looks there before it downloads
        (folder / "hub/checkpoints").mkdir(parents=True)
        random_weights(folder / WEIGHTS)
        (folder / "hub/checkpoints" / WEIGHTS).symlink_to(folder / WEIGHTS)
        bench_features(folder, options.images, options.rounds)
        bench_frechet(folder, options.dims, options.rounds)
        if options.end_to_end:
            bench_end_to_end(folder, options.end_to_end)


if __name__ == "__main__":
    main()
