"""Reads with PyTorch, NumPy and TensorBoard what the C++ program wrote (python_test.cpp), and writes what it must read.

Element i of the tensor at place k of a file is (i + k) % 2 for booleans, else i + k.
"""
import sys

import numpy as np


def check(condition, what):
    if not condition:
        sys.exit(f"{sys.argv[1]}: {what}")


def expected(shape, place, dtype):
    values = np.arange(place, place + int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return values % 2 == 1 if dtype is bool else values.astype(dtype)


def read_pth(path):
    import torch

    state = torch.load(path, weights_only=True)
    names = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "scalar", "empty"]
    check(type(state).__name__ == "OrderedDict" and list(state) == names, f"keys {list(state)}")
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
              torch.float32, torch.float32]
    for place, (name, dtype) in enumerate(zip(names, dtypes)):
        shape = {"scalar": (), "empty": (0, 3)}.get(name, (2, 3))
        tensor = state[name]
        check(tensor.dtype == dtype and tuple(tensor.shape) == shape, f"{name}: {tensor.dtype} {tuple(tensor.shape)}")
        check(tensor.is_contiguous(), f"{name} is not contiguous")
        wanted = torch.from_numpy(np.asarray(expected(shape, place, bool if dtype == torch.bool else np.float64)))
        check(torch.equal(tensor.to(wanted.dtype), wanted), f"{name} = {tensor}")


def read_safetensors(path):
    import safetensors.torch
    import torch

    tensors = safetensors.torch.load_file(path)
    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
             "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "scalar": torch.float32, "empty": torch.float32}
    check(set(tensors) == set(types), f"names {list(tensors)}")
    for place, (name, dtype) in enumerate(types.items()):
        tensor = tensors[name]
        shape = {"scalar": (), "empty": (0, 3)}.get(name, (2, 3))
        wanted = torch.arange(place, place + int(np.prod(shape))).reshape(shape)
        wanted = wanted % 2 == 1 if name == "BOOL" else wanted.to(dtype)
        check(tensor.dtype == dtype and torch.equal(tensor, wanted), f"{name} {tensor}")
    safetensors.torch.save_file(tensors, path + ".copy")


def read_values(path):
    import torch

    value = torch.load(path, weights_only=True)
    check(value["step"] == 20 and value["large"] == -(2**40), f"{value}")
    check(value["inner"] == {7: [True, None, 0.1, "\u00fc"]}, f"inner {value['inner']}")
    check(torch.equal(value["tensor"], torch.arange(4, 10, dtype=torch.float32).reshape(2, 3)), f"tensor {value['tensor']}")


def read_npz(path):
    with np.load(path) as file:
        names = ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL", "scalar", "empty"]
        dtypes = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, bool, np.float32, np.float32]
        check(file.files == names, f"arrays {file.files}")
        for place, (name, dtype) in enumerate(zip(names, dtypes)):
            shape = {"scalar": (), "empty": (0, 3)}.get(name, (2, 3))
            array = file[name]
            check(array.dtype == dtype and array.shape == shape, f"{name}: {array.dtype} {array.shape}")
            check(np.array_equal(array, expected(shape, place, dtype)), f"{name} = {array}")


def write_npz(path):
    arrays = {
        "f64": expected((2, 3), 0, np.float64),
        "f16_fortran": np.asfortranarray(expected((2, 3), 1, np.float16)),
        "u8_cube_fortran": np.asfortranarray(expected((2, 3, 4), 2, np.uint8)),
        "scalar": np.float32(3.0),
        "flags": expected((5,), 4, bool),
        "empty": np.zeros((0, 2), np.int64),
    }
    np.savez(path + "/stored.npz", **arrays)
    np.savez_compressed(path + "/deflated.npz", **arrays)


def write_pth(path):
    import torch
    from collections import OrderedDict

    base = torch.arange(24, dtype=torch.float32)
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(base[:6].view(2, 3))
        linear.bias.copy_(base[6:8])
    value = OrderedDict(
        matrix=base.view(4, 6),
        transposed=base.view(4, 6).t(),
        row=base.view(4, 6)[2],
        every_third=base[1::3],
        expanded=base[5].expand(2, 2),
        complex=torch.complex(base[:2], base[2:4]),
        half=base[:3].half(),
        brain=base[:3].bfloat16(),
        flags=base[:3] > 1,
        parameter=torch.nn.Parameter(base[:2].clone()),
        storage=torch.tensor([1, 2, 3], dtype=torch.uint8).untyped_storage(),
        module=linear.state_dict(),
        size=base.view(4, 6).shape,
        plain={"none": None, "yes": True, "int": -(2**40), "float": 0.1, "text": "\u00fc", "bytes": b"\x00\xff", 7: [1, (2, 3)]},
    )
    for protocol in (2, 3, 4, 5):
        torch.save(value, f"{path}/protocol{protocol}.pth", pickle_protocol=protocol)
    torch.save({"model": torch.nn.Linear(2, 2)}, path + "/module.pth")
    torch.save({"epoch": 3, "model": linear.state_dict()}, path + "/nested.pth")
    torch.save(linear.state_dict(), path + "/legacy.pth", _use_new_zipfile_serialization=False)


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("train/loss")]
    check(scalars == [(0, 0.5), (300, 0.25), (2**40, -1.5)], f"scalars {scalars}")
    check(all(event.wall_time > 1.6e9 for event in events.Scalars("train/loss")), "wall time")
    image = events.Images("samples")[0]
    check((image.step, image.height, image.width) == (7, 2, 3), f"image {image.step} {image.height} {image.width}")
    check(image.encoded_image_string == bytes(range(256)), "image bytes")
    text = events.Tensors("config")[0]
    check(text.tensor_proto.string_val[0].decode() == "[model]\ndepth = 4 \u00fc", f"text {text}")
    check(text.step == 9 and [dim.size for dim in text.tensor_proto.tensor_shape.dim] == [1], f"text {text}")
    check(events.SummaryMetadata("config").plugin_data.plugin_name == "text", "plugin of the text")
    histogram = events.Histograms("weights")[0]
    value = histogram.histogram_value
    check((histogram.step, value.min, value.max, value.num, value.sum, value.sum_squares) == (5, -1, 3, 6, 4.5, 20.25), f"histogram {value}")
    check((list(value.bucket_limit), list(value.bucket)) == ([-0.5, 0.5, 3], [1, 2, 3]), f"buckets {value}")
    read_hparams(events)


def read_hparams(events):
    from tensorboard.plugins.hparams import api_pb2, metadata

    def content(tag):
        return events.SummaryMetadata(tag).plugin_data.content

    experiment = metadata.parse_experiment_plugin_data(content(metadata.EXPERIMENT_TAG))
    types = {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos}
    check(types == {"optimizer.lr": "DATA_TYPE_FLOAT64", "data.flip": "DATA_TYPE_BOOL", "data.off": "DATA_TYPE_BOOL", "model.mlp": "DATA_TYPE_STRING",
                    "empty": "DATA_TYPE_STRING"}, f"types {types}")
    check([info.name.tag for info in experiment.metric_infos] == ["loss/eval"], f"metrics {experiment.metric_infos}")
    session = metadata.parse_session_start_info_plugin_data(content(metadata.SESSION_START_INFO_TAG))
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in session.hparams.items()}
    check(values == {"optimizer.lr": 0.002, "data.flip": True, "data.off": False, "model.mlp": "gelu", "empty": ""}, f"settings {values}")
    check(session.group_name == "run \u00fc" and session.start_time_secs > 1.6e9, f"session {session}")
    end = metadata.parse_session_end_info_plugin_data(content(metadata.SESSION_END_INFO_TAG))
    check(end.status == api_pb2.STATUS_SUCCESS and end.end_time_secs >= session.start_time_secs, f"end {end}")


def read_purged_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    scalars = events.Scalars("train/loss")
    values = [(event.step, event.value) for event in scalars]
    check(values == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 105), (6, 106), (7, 107), (8, 208)], f"scalars {values}")
    times = [event.wall_time for event in scalars]
    check(times == sorted(times), f"times {times}")


if __name__ == "__main__":
    functions = (read_pth, read_safetensors, read_values, read_npz, write_npz, write_pth, read_events, read_purged_events)
    {function.__name__: function for function in functions}[sys.argv[1]](sys.argv[2])
