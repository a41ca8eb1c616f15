"""Reading safetensors of either transformers, and one clear sentence for what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pythia_bento.checkpoints import tensor_names
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.reader import INDEX, Reader
from pythia_bento.errors import CheckpointError
from tests.later import transformers
from tests.unit.checkpoints.conftest import Edit, edit

QKV = "gpt_neox.layers.1.attention.query_key_value.weight"


def read(directory: Path) -> Reader:
    return Reader(directory, read_config(directory / "config.json"))


def contents(directory: Path) -> dict[str, Tensor]:
    reader = read(directory)
    names = tensor_names.shapes(read_config(directory / "config.json"))
    return {name: reader.tensor(name) for name in names}


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(directory)
    return str(caught.value)


def test_every_stored_tensor_is_read(original: Path) -> None:
    stored = load_file(original / "model.safetensors")
    found = contents(original)
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)


def test_shards_hold_the_same(original: Path, copy: Path) -> None:
    model = transformers.GPTNeoXForCausalLM.from_pretrained(original, dtype=torch.float16)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="60KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 2
    found, whole = contents(copy), contents(original)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("embed_out", "lm_head"): t for name, t in tensors.items()}


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("gpt_neox."): t for name, t in tensors.items()}


def with_buffers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    block = "gpt_neox.layers.0.attention"
    return {
        **tensors,
        f"{block}.bias": torch.ones(1, 1, 256, 256, dtype=torch.uint8),
        f"{block}.masked_bias": torch.tensor(-1e9),
        f"{block}.rotary_emb.inv_freq": torch.ones(4),
    }


@pytest.mark.parametrize("change", [renamed, without_prefix, with_buffers])
def test_other_spellings_hold_the_same(original: Path, copy: Path, change: Edit) -> None:
    edit(copy, change)
    found, whole = contents(copy), contents(original)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_wrong_shape_names_tensor_file_and_both_shapes(copy: Path) -> None:
    def narrow(tensors: dict[str, Tensor]) -> None:
        tensors[QKV] = tensors[QKV][:, :-1].contiguous()

    edit(copy, narrow)
    message = refusal(copy)
    assert all(word in message for word in (QKV, "model.safetensors", "[192, 63]", "[192, 64]"))


def test_a_missing_tensor_is_named(copy: Path) -> None:
    edit(copy, lambda tensors: {k: v for k, v in tensors.items() if k != QKV})
    assert refusal(copy).endswith(f"lacks tensor {QKV}")


def test_a_model_without_a_head_is_refused(copy: Path) -> None:
    edit(copy, lambda tensors: {k: v for k, v in tensors.items() if k != "embed_out.weight"})
    assert "embed_out.weight" in refusal(copy)


def test_an_unknown_tensor_is_named(copy: Path) -> None:
    edit(copy, lambda tensors: {**tensors, "gpt_neox.adapter.weight": torch.ones(2)})
    assert "gpt_neox.adapter.weight" in refusal(copy)


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_an_unusable_type_is_named(copy: Path, dtype: torch.dtype) -> None:
    def cast(tensors: dict[str, Tensor]) -> None:
        tensors[QKV] = tensors[QKV].to(dtype)

    edit(copy, cast)
    message = refusal(copy)
    assert QKV in message
    assert "F16" in message


def test_one_tensor_in_two_shards_is_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").rename(copy / "a.safetensors")
    save_file({QKV: tensors[QKV]}, copy / "b.safetensors")
    (copy / INDEX).write_text(
        json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    )
    message = refusal(copy)
    assert "a.safetensors" in message
    assert "b.safetensors" in message


def test_a_missing_shard_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / INDEX).write_text(json.dumps({"weight_map": {QKV: "model-00001-of-00002.safetensors"}}))
    assert "lacks model-00001-of-00002.safetensors" in refusal(copy)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a\\b", "", 7])
def test_an_index_reaches_only_files_beside_it(copy: Path, name: object) -> None:
    (copy / "model.safetensors").unlink()
    (copy / INDEX).write_text(json.dumps({"weight_map": {QKV: name}}))
    assert repr(name) in refusal(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}'])
def test_a_broken_index_is_named(copy: Path, text: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / INDEX).write_text(text)
    assert INDEX in refusal(copy)


def test_pickles_alone_are_refused_by_name(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    message = refusal(copy)
    assert "pytorch_model.bin" in message
    assert "safetensors" in message


def test_pickles_beside_safetensors_are_not_looked_at(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert QKV in read(copy)


def test_an_empty_and_an_absent_directory(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "neither model.safetensors nor" in refusal(copy)
    config = read_config(copy / "config.json")
    with pytest.raises(CheckpointError, match="does not exist"):
        Reader(copy / "absent", config)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(copy: Path, keep: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(copy)
    assert str(path) in message
    assert "truncated or damaged" in message


def test_garbage_is_named(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\xff" * 4096)
    assert "truncated or damaged" in refusal(copy)


@pytest.mark.parametrize("dtype", ["BF\n6", "a" * 5000, "F16\u2028", "\x1b[2J"])
def test_a_header_of_any_words_is_one_sentence(copy: Path, dtype: str) -> None:
    header = {"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, 2]}}
    data = json.dumps(header).encode()
    path = copy / "model.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data + b"\0\0")
    message = refusal(copy)
    assert "truncated or damaged" in message
    assert len(message) <= 600 and message.isprintable()
