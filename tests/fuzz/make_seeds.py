"""Writes tests/fuzz/seeds anew: small inputs that reach the inside of each parser. Run by hand: .venv/bin/python tests/fuzz/make_seeds.py

Needs numpy, torch, Pillow and safetensors (tools/setup.sh --tests). Findings that were mended are kept beside them as mended-*, which this leaves alone.
"""
import gzip
import io
import json
import struct
import tarfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

SEEDS = Path(__file__).parent / "seeds"
ROOT = Path(__file__).parents[2]
BORDER = b"\n--\n"


def put(target, name, *parts):
    (SEEDS / target).mkdir(parents=True, exist_ok=True)
    (SEEDS / target / name).write_bytes(BORDER.join(part.encode() if isinstance(part, str) else part for part in parts))


def toml():
    put("toml", "small", '[model]\nattention = ["cog"]\ndepth = 4\n[data]\nimage_size = [32, 16]\nflip = true\n[optimizer]\nbetas = [0.9, 1e-1]\n', "train.steps=7")
    put("toml", "config", (ROOT / "configs/fashion_mnist/uvic.toml").read_text(), "model.softmax_blocks=[first, last]")


def idx():
    images = struct.pack(">4I", 0x803, 3, 2, 3) + bytes(range(18))
    labels = struct.pack(">2I", 0x801, 3) + bytes([0, 2, 1])
    put("idx", "plain", images, labels)
    put("idx", "gzip", gzip.compress(images, mtime=0), gzip.compress(labels, mtime=0))


def cifar():
    put("cifar", "ten", b"0" + b"\x01" + bytes(3072), *[b"\x02" + bytes(3072)] * 4)
    put("cifar", "hundred", b"1" + b"\x01\x02" + bytes(3072))


def npz():
    for name, array in {"f8": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6, dtype="<i4").reshape(3, 2)), "scalar": np.float32(3)}.items():
        stream = io.BytesIO()
        np.save(stream, array)
        put("npz", name, b"n" + stream.getvalue())
    for name, write in {"stored": np.savez, "deflated": np.savez_compressed}.items():
        stream = io.BytesIO()
        write(stream, a=np.zeros((2, 2)), b=np.ones(3, dtype=np.uint8))
        put("npz", name, b"z" + stream.getvalue())


def safetensors():
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(0), "c": torch.tensor(3, dtype=torch.int64), "d": torch.ones(3, dtype=torch.bfloat16)}
    put("safetensors", "small", save(tensors, {"format": "pt"}))
    put("safetensors", "empty", struct.pack("<Q", 2) + b"{}")


def pth():
    state = OrderedDict(weight=torch.arange(6.0).reshape(2, 3).t(), bias=torch.nn.Parameter(torch.zeros(2, dtype=torch.float16)))
    values = {"state_dict": state, "step": 7, "lr": 1e-3, "names": ["a", ("b", None, True)], "bytes": b"\x80x"}
    for name, value in {"state": state, "values": values}.items():
        stream = io.BytesIO()
        torch.save(value, stream)
        put("pth", name, b"z" + stream.getvalue())
        with __import__("zipfile").ZipFile(stream) as archive:
            pickle = next(member for member in archive.namelist() if member.endswith("data.pkl"))
            put("pth", name + "-pickle", b"p" + archive.read(pickle))


PNG = b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for kind, data in ((b"IHDR", struct.pack(">2I5B", 3, 2, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0abc\0def")), (b"IEND", b"")))


def shards():
    for name, form in {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}.items():
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
            key = "k" * (30 if name == "ustar" else 120)
            for ending, data in ((".png", PNG), (".cls", b"3"), (".json", b'{"captions": ["a", "b"]}')):
                info = tarfile.TarInfo("folder/" + key + ending)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        put("shards", name, b"t" + stream.getvalue())
    index = {"format": 1, "source": "x", "count": 2, "num_classes": 3, "class_names": ["a", "b", "c"], "samples_crc32": "CRC",
             "shards": [{"name": "00000.tar", "count": 2, "size": 4096, "sha256": ""}]}
    records = struct.pack("<2Q4I", 512, 1536, 100, 0, 2, 30) + struct.pack("<2Q4I", 2560, 0, 50, 0, 0, 0)
    put("shards", "index", b"i" + json.dumps(index).replace('"CRC"', "CRC").encode(), records)


def event_file():
    event = b"\x09" + struct.pack("<d", 1.8e9) + b"\x1a\x0dbrain.Event:2"
    record = struct.pack("<QI", len(event), 0) + event + struct.pack("<I", 0)
    put("event_file", "two", "1800000000.host.7", record + record)


def image():
    put("image", "png", PNG)
    put("image", "bmp", b"BM" + struct.pack("<IHHI", 54 + 24, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 3, 2, 1, 24, 0, 24, 0, 0, 0, 0) + bytes(24))
    picture = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    for form in ("JPEG", "WEBP"):
        stream = io.BytesIO()
        picture.save(stream, form)
        put("image", form.lower(), stream.getvalue())


def lists():
    put("lists", "latents", "l" + json.dumps({"format": 1, "count": 3, "shard_size": 2, "channels": 4, "height": 2, "width": 2, "scale_factor": 0.5, "flips": True,
                                              "autoencoder": "x", "source": "y", "num_classes": 2, "class_names": ["a", "b"], "mean": [0.0], "std": [1.0]}))
    put("lists", "captions", "c" + json.dumps({"format": 1, "count": 3, "shard_size": 2, "tokens": 4, "dim": 2, "text_encoder": "x"}))
    put("lists", "pairs", 'j{"labels": [["a.png", 3], ["b.png", "x"]]}')
    put("lists", "map", 'j{"a.png": "x", "b.png": "y"}')
    put("lists", "csv", 'vfile,class\n"a.png",2\r\nb.png,0\n')
    put("lists", "coco", 'o{"images": [{"id": 9, "file_name": "a.png"}, {"id": 4, "file_name": "b.png"}]}')
    put("lists", "celeba", "a000001.jpg 0\n000002.jpg 1\n")


for make in (toml, idx, cifar, npz, safetensors, pth, shards, event_file, image, lists):
    make()
