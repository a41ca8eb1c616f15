"""Writes bitsandbytes' 8-bit format as transformers does, so that both read it back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pythia_bento.checkpoints import tensor_names
from pythia_bento.checkpoints.reader import COPIED, INDEX, WEIGHTS
from pythia_bento.errors import CheckpointError
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm, WeightSource

SHARD_BYTES = 256 << 20
"""Parts of the model are gathered up to this size before they are written."""

QUANTIZATION_CONFIG: dict[str, Any] = {
    "_load_in_4bit": False,
    "_load_in_8bit": True,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": False,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_skip_modules": None,  # transformers' default, which leaves the head in fp16
    "llm_int8_threshold": 6.0,
    "load_in_4bit": False,
    "load_in_8bit": True,
    "quant_method": "bitsandbytes",
}


def save_int8(
    source: WeightSource,
    origin: Path,
    target: Path,
    on_progress: Callable[[int, int], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model of ``origin`` in 8 bits to the new directory ``target``.

    ``target`` appears when all is written. At most one shard and one part of the model are in
    memory. Raises CheckpointError if ``target`` exists.
    """
    if target.exists():
        raise CheckpointError(f"{target} exists already; name a new directory")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_weights(source, partial, on_progress or (lambda done, total: None), shard_bytes)
        copy_beside(origin, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_beside(origin: Path, target: Path) -> None:
    """All that lies beside the weights: the config of 8-bit ones, and the tokenizer's files."""
    _write_config(origin / "config.json", target / "config.json")
    for name in COPIED:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, target / name)


def _write_config(origin: Path, target: Path) -> None:
    raw = json.loads(origin.read_text())
    raw.pop("torch_dtype", None)
    raw |= {"dtype": "float16", "quantization_config": QUANTIZATION_CONFIG}
    target.write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")


def _write_weights(
    source: WeightSource, directory: Path, report: Callable[[int, int], None], limit: int
) -> None:
    total = source.config.num_layers + 2
    pending: dict[str, Tensor] = {}
    shards: list[tuple[Path, list[str], int]] = []

    def flush() -> None:
        path = directory / f"shard-{len(shards)}"
        save_file(pending, path, metadata={"format": "pt"})
        shards.append((path, sorted(pending), sum(t.nbytes for t in pending.values())))
        pending.clear()

    for done, part in enumerate(_parts(source), 1):
        pending |= part
        if sum(tensor.nbytes for tensor in pending.values()) >= limit:
            flush()
        report(done, total)
    if pending:
        flush()
    _name_shards(directory, shards)


def _name_shards(directory: Path, shards: list[tuple[Path, list[str], int]]) -> None:
    """Give shards their final names, which hold their number; a lone one needs no index."""
    if len(shards) == 1:
        shards[0][0].rename(directory / WEIGHTS)
        return
    weight_map: dict[str, str] = {}
    for number, (path, names, _) in enumerate(shards, 1):
        final = f"model-{number:05}-of-{len(shards):05}.safetensors"
        path.rename(directory / final)
        weight_map |= dict.fromkeys(names, final)
    size = sum(size for _, _, size in shards)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _parts(source: WeightSource) -> Iterator[dict[str, Tensor]]:
    yield {tensor_names.EMBEDDING: source.embedding()}
    for index in range(source.config.num_layers):
        yield _layer(tensor_names.layer_prefix(index), source.layer(index))
    yield _head(source.head())


def _layer(prefix: str, layer: LayerWeights) -> dict[str, Tensor]:
    return {
        **_norm(prefix + tensor_names.INPUT_NORM, layer.input_norm),
        **_norm(prefix + tensor_names.POST_ATTENTION_NORM, layer.post_attention_norm),
        **_linear(prefix + tensor_names.QKV, layer.qkv),
        **_linear(prefix + tensor_names.DENSE, layer.dense),
        **_linear(prefix + tensor_names.UP, layer.up),
        **_linear(prefix + tensor_names.DOWN, layer.down),
    }


def _head(head: HeadWeights) -> dict[str, Tensor]:
    return {**_norm(tensor_names.FINAL_NORM, head.norm), f"{tensor_names.HEAD}.weight": head.weight}


def _norm(name: str, norm: Norm) -> dict[str, Tensor]:
    return {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}


def _linear(name: str, linear: Int8Linear) -> dict[str, Tensor]:
    return {
        f"{name}.weight": linear.weight,
        f"{name}.SCB": linear.scb,
        f"{name}.weight_format": torch.tensor(0, dtype=torch.uint8),  # by row
        f"{name}.bias": linear.bias,
    }
