"""Repositories as the real hub has them, odd in every known way: each is pulled and loads right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pythia_bento.catalog import parse
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.reader import INDEX, WEIGHTS
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import CheckpointError
from pythia_bento.model.weights import WeightSource
from tests.hub import HubServer
from tests.later import transformers
from tests.models import random_checkpoint

REPO, MODEL = "EleutherAI/pythia-14m", "pythia-14m"
SHAPE = {"heads": 2, "head_dim": 16}


def with_buffers(path: Path) -> None:
    """The causal mask and more, as transformers 4 stored them."""
    tensors = load_file(path / WEIGHTS)
    for layer in range(2):
        prefix = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{prefix}.bias"] = torch.ones(1, 1, 256, 256, dtype=torch.uint8)
        tensors[f"{prefix}.masked_bias"] = torch.tensor(-1e9)
        tensors[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, path / WEIGHTS)


def in_fp32(path: Path) -> None:
    """Four bytes a weight, and a config that says float16."""
    tensors = load_file(path / WEIGHTS)
    save_file({name: tensor.float() for name, tensor in tensors.items()}, path / WEIGHTS)
    change_config(path, torch_dtype="float16")


def with_wrong_end_of_text(path: Path) -> None:
    """As a re-upload with the defaults of transformers' class."""
    change_config(path, eos_token_id=2, bos_token_id=2)


def in_shards(path: Path) -> None:
    """Several files and an index."""
    model = transformers.GPTNeoXForCausalLM.from_pretrained(path, dtype=torch.float16)
    (path / WEIGHTS).unlink()
    model.save_pretrained(path, max_shard_size="20KB")
    assert (path / INDEX).is_file()


def with_pickles(path: Path) -> None:
    """Files that must not be downloaded, let alone read."""
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin"):
        (path / name).write_bytes(b"\x80 never read")


def change_config(path: Path, **fields: object) -> None:
    config = json.loads((path / "config.json").read_text()) | fields
    (path / "config.json").write_text(json.dumps(config))


def tensors(source: WeightSource) -> list[torch.Tensor]:
    head, found = source.head(), [source.embedding()]
    for index in range(source.config.num_layers):
        layer = source.layer(index)
        for linear in (layer.qkv, layer.dense, layer.up, layer.down):
            found += [linear.weight, linear.scb, linear.bias]
        for norm in (layer.input_norm, layer.post_attention_norm):
            found += [norm.weight, norm.bias]
    return [*found, head.norm.weight, head.norm.bias, head.weight]


@pytest.mark.parametrize(
    "oddity", [with_buffers, in_fp32, with_wrong_end_of_text, in_shards, with_pickles]
)
def test_odd_repository_gives_the_weights_of_a_plain_one(
    hub: HubServer, bento_home: Path, tmp_path: Path, oddity: Callable[[Path], None]
) -> None:
    plain = random_checkpoint(tmp_path / "plain", **SHAPE)
    shutil.copytree(plain, tmp_path / "odd")
    oddity(tmp_path / "odd")
    hub.folder.commit(REPO, "main", tmp_path / "odd")
    pull(parse(MODEL))
    loaded, expected = load_checkpoint(MODEL), load_checkpoint(str(plain))
    pairs = zip(tensors(loaded.source), tensors(expected.source), strict=True)
    assert all(ours.dtype == theirs.dtype and torch.equal(ours, theirs) for ours, theirs in pairs)
    assert loaded.config == expected.config
    assert Tokenizer.from_file(loaded.tokenizer_path).eos_id == 0
    assert not [s.path for s in hub.seen if s.path.endswith((".bin", ".pt"))]


@pytest.mark.parametrize("rows", [50304, 50432, 50688])
def test_vocabularies_of_every_size(
    hub: HubServer, bento_home: Path, tmp_path: Path, rows: int
) -> None:
    source = random_checkpoint(tmp_path / "source", heads=1, head_dim=8, layers=1, vocab=rows)
    commit = hub.folder.commit(REPO, "step1", source)
    pull(parse(f"{MODEL}@step1"))
    loaded = load_checkpoint(f"EleutherAI/{MODEL}@{commit}")
    assert loaded.source.embedding().shape == (rows, 8)
    assert loaded.source.head().weight.shape == (rows, 8)
    assert (loaded.model_id, loaded.commit) == (MODEL, commit)


def test_repository_of_pickles_alone_is_refused(
    hub: HubServer, bento_home: Path, tmp_path: Path
) -> None:
    source = random_checkpoint(tmp_path / "source", **SHAPE)
    with_pickles(source)
    (source / WEIGHTS).unlink()
    hub.folder.commit(REPO, "main", source)
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor"):
        pull(parse(MODEL))
    assert not hub.requests("/resolve/")
