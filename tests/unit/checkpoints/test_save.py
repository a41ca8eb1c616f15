"""The 8-bit directories: transformers reads ours, we read transformers', both give the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.reader import INDEX, WEIGHTS
from pythia_bento.checkpoints.save import COPIED, QUANTIZATION_CONFIG, save_int8
from pythia_bento.errors import CheckpointError
from pythia_bento.model.weights import LayerWeights, WeightSource
from tests.later import transformers

PROMPT = torch.tensor([[5, 99, 17, 200, 3, 42]])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def theirs(original: Path) -> transformers.PreTrainedModel:
    """Quantised by transformers itself."""
    config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    model: transformers.PreTrainedModel = transformers.AutoModelForCausalLM.from_pretrained(
        original, quantization_config=config, device_map="cpu", dtype=torch.float16
    )
    return model


def logits(model: transformers.PreTrainedModel) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(PROMPT).logits
    return result


def tensors(layer: LayerWeights) -> Iterator[Tensor]:
    for norm in (layer.input_norm, layer.post_attention_norm):
        yield from (norm.weight, norm.bias)
    for linear in (layer.qkv, layer.dense, layer.up, layer.down):
        yield from (linear.weight, linear.scb, linear.bias)


def everything(source: WeightSource) -> list[Tensor]:
    head = source.head()
    layers = [source.layer(index) for index in range(source.config.num_layers)]
    blocks = [tensor for layer in layers for tensor in tensors(layer)]
    return [source.embedding(), *blocks, head.norm.weight, head.norm.bias, head.weight]


def assert_same(ours: WeightSource, expected: WeightSource) -> None:
    pairs = zip(everything(ours), everything(expected), strict=True)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("shard_bytes", [1, 100_000, 1 << 30])
def test_transformers_reads_what_is_written(
    original: Path, tmp_path: Path, theirs: transformers.PreTrainedModel, shard_bytes: int
) -> None:
    target, done = tmp_path / "int8", []
    source = load_checkpoint(str(original)).source
    save_int8(source, original, target, lambda *step: done.append(step), shard_bytes)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(target, device_map="cpu")
    assert loaded.is_loaded_in_8bit
    assert loaded.dtype == torch.float16
    assert torch.equal(logits(loaded), logits(theirs))


@pytest.mark.parametrize("shard_bytes", [1, 1 << 30])
def test_reading_back_gives_the_same_bits(original: Path, tmp_path: Path, shard_bytes: int) -> None:
    source = load_checkpoint(str(original)).source
    save_int8(source, original, tmp_path / "int8", shard_bytes=shard_bytes)
    assert (tmp_path / "int8" / WEIGHTS).exists() == (shard_bytes > 1)
    assert (tmp_path / "int8" / INDEX).exists() == (shard_bytes == 1)
    loaded = load_checkpoint(str(tmp_path / "int8"))
    assert loaded.quantization == "int8 by row, as stored"
    assert_same(loaded.source, source)


def test_what_transformers_writes_is_read(
    original: Path, copy: Path, theirs: transformers.PreTrainedModel
) -> None:
    (copy / WEIGHTS).unlink()
    theirs.save_pretrained(copy)
    loaded = load_checkpoint(str(copy))
    assert loaded.quantization == "int8 by row, as stored"
    assert_same(loaded.source, load_checkpoint(str(original)).source)


def test_the_config_is_what_transformers_writes(
    original: Path, tmp_path: Path, theirs: transformers.PreTrainedModel
) -> None:
    save_int8(load_checkpoint(str(original)).source, original, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert ours == json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert ours["quantization_config"] == QUANTIZATION_CONFIG


def test_writing_twice_gives_the_same_bytes(original: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_int8(load_checkpoint(str(original)).source, original, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"config.json", "tokenizer.json", WEIGHTS} <= set(files)
    assert set(files) <= {"config.json", WEIGHTS, *COPIED}
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_existing_target_is_left_alone(original: Path, tmp_path: Path) -> None:
    (tmp_path / "int8").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        save_int8(load_checkpoint(str(original)).source, original, tmp_path / "int8")
    assert list((tmp_path / "int8").iterdir()) == []


def test_a_failure_leaves_nothing(original: Path, tmp_path: Path) -> None:
    source = load_checkpoint(str(original)).source
    with pytest.raises(FileNotFoundError):  # written first: all weights
        save_int8(source, tmp_path / "no such origin", tmp_path / "int8")
    assert list(tmp_path.iterdir()) == []
