"""Random checkpoint directories: safetensors headers, data, shards and index, right and wrong.

What is read is compared with the bytes of the file, at the places that its own header names.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pythia_bento.checkpoints import tensor_names
from pythia_bento.checkpoints.quantize import CheckpointWeights
from pythia_bento.checkpoints.reader import INDEX, WEIGHTS, Reader
from pythia_bento.model.config import ModelConfig
from tests.fuzz.documents import refused
from tests.fuzz.structures import as_json, mutated

CONFIG = ModelConfig(1, 8, 1, 16, 12, 64, 2)
SIZES = {"F16": 2, "BF16": 2, "F32": 4, "I8": 1, "U8": 1, "F64": 8, "I64": 8, "BOOL": 1}
DTYPES = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8}
ODD: list[Any] = [
    *(None, True, 0, 1, -1, 8, 2**31, 2**63, 2**64 - 1, 10**30, 0.5, float("nan"), "", "F16"),
    *("I8", "F64", "F8_E4M3", "f16", "x", [], {}, [0], [8], [8, 8], [0, 0], [2**63, 2**63]),
    *([-1, 8], [0, 2**64 - 1], [8, 8, 1], "@deep50", "@deep3000", "a" * 5000, "a\0b", "\ud800"),
    *([1] * 300, [2**32, 2**32], "gpt_neox.embed_in.weight", "__metadata__", {"format": "pt"}),
]


def tensor_file(draw: random.Random, folder: Path) -> str:
    """Read, and the same as the bytes; or refused."""
    directory = folder / "checkpoint"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    _write(draw, directory)
    if refused(lambda: _read_all(directory)):
        return "refused"
    reader = Reader(directory, CONFIG)
    for name in tensor_names.shapes(CONFIG):
        _compare(reader, name)
    return "read"


def _read_all(directory: Path) -> None:
    weights = CheckpointWeights(directory, CONFIG)
    weights.embedding(), weights.head()
    layer = weights.layer(0)
    for linear in (layer.qkv, layer.dense, layer.up, layer.down):
        assert linear.scb.isfinite().all() and linear.bias.isfinite().all()


def _compare(reader: Reader, name: str) -> None:
    """The tensor that is read is what lies at its offsets, by another reading of the header."""
    entry = reader.entry(name)
    data = entry.file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    facts = json.loads(data[8 : 8 + length])[entry.stored_name]
    begin, end = (8 + length + offset for offset in facts["data_offsets"])
    found = reader.tensor(name).contiguous()
    assert list(found.shape) == facts["shape"] and found.dtype == DTYPES[facts["dtype"]]
    assert found.view(torch.uint8).numpy().tobytes() == data[begin:end]


def _write(draw: random.Random, directory: Path) -> None:
    tensors = _tensors(draw)
    if draw.random() < 0.7:
        _write_file(draw, directory / WEIGHTS, tensors)
        return
    names = sorted(tensors)
    cut = draw.randint(0, len(names))
    files = {"model-00001-of-00002.safetensors": names[:cut]}
    files["model-00002-of-00002.safetensors"] = names[cut:]
    weight_map = {name: file for file, part in files.items() for name in part}
    for file, part in files.items():
        _write_file(draw, directory / file, {name: tensors[name] for name in part})
    raw: Any = {"metadata": {"total_size": 5}, "weight_map": weight_map}
    if draw.random() < 0.4:
        raw = mutated(draw, raw, draw.randint(1, 2))
    (directory / INDEX).write_bytes(as_json(draw, raw))


def _tensors(draw: random.Random) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> dtype, shape and bytes, of floats or with int8 linears."""
    int8 = draw.random() < 0.3
    dtype = draw.choice(["F16", "F32", "BF16"])
    found = {}
    for name, shape in tensor_names.shapes(CONFIG).items():
        linear = int8 and len(shape) == 2 and ".layers." in name
        found[name] = _tensor(draw, "I8" if linear else dtype, shape)
        if linear:
            base = name.removesuffix(".weight")
            found[f"{base}.SCB"] = _tensor(draw, "F32", shape[:1])
            found[f"{base}.weight_format"] = ("U8", (), bytes([draw.random() < 0.05]))
    if draw.random() < 0.1:
        mask = _tensor(draw, "U8", (1, 1, 4, 4))
        found["gpt_neox.layers.0.attention.bias"] = mask
    return found


def _tensor(
    draw: random.Random, dtype: str, shape: tuple[int, ...]
) -> tuple[str, tuple[int, ...], bytes]:
    count = int(np.prod(shape, dtype=np.int64))
    random_bytes = np.random.Generator(np.random.Philox(draw.randrange(2**32)))
    if dtype in ("I8", "U8"):
        return dtype, shape, random_bytes.integers(0, 255, count, np.uint8).tobytes()
    values = torch.from_numpy(random_bytes.normal(0, 1, count)).to(DTYPES[dtype])
    if draw.random() < 0.01:
        values[draw.randrange(count)] = draw.choice([float("nan"), float("inf"), 1e38])
    return dtype, shape, values.view(torch.uint8).numpy().tobytes()


def _write_file(
    draw: random.Random, path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at, parts = 0, []
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [at, at + len(data)],
        }
        at += len(data)
        parts.append(data)
    changed = draw.random() < 0.5
    text = (
        as_json(draw, mutated(draw, header, draw.randint(1, 3), ODD))
        if changed
        else json.dumps(header).encode()
    )
    text += b" " * (-len(text) % 8)
    length = len(text)
    if draw.random() < 0.05:
        length = draw.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, 10**8 + 1])
    data = struct.pack("<Q", max(length, 0)) + text + b"".join(parts)
    if draw.random() < 0.05:
        data = data[: draw.randint(0, len(data))] + draw.choice([b"", b"\0", b"more"])
    path.write_bytes(data)
