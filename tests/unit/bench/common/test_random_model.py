from __future__ import annotations

from pathlib import Path

import torch

from bench.common.random_model import RandomModel, write_int8
from pythia_bento import catalog
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.engine.tokenizer import Tokenizer

CPU = torch.device("cpu")


def test_a_written_checkpoint_is_the_random_model(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_int8("pythia-14m", path, CPU, outliers=3)
    found = load_checkpoint(str(path))
    assert found.quantization == "int8 by row, as stored"
    assert found.config == catalog.config("pythia-14m")
    assert Tokenizer.from_file(found.tokenizer_path).num_tokens == 50277
    wanted = RandomModel(found.config, CPU, outliers=3)
    for index in (0, found.config.num_layers - 1):
        ours, theirs = wanted.layer(index), found.source.layer(index)
        assert torch.equal(ours.qkv.weight, theirs.qkv.weight)
        assert torch.equal(ours.down.scb, theirs.down.scb)
        assert torch.equal(ours.input_norm.weight, theirs.input_norm.weight)
    written = (path / "model.safetensors").stat().st_mtime_ns
    write_int8("pythia-14m", path, CPU)
    assert (path / "model.safetensors").stat().st_mtime_ns == written


def test_outliers_are_columns_of_the_norms() -> None:
    config = catalog.config("pythia-14m")
    plain, marked = RandomModel(config, CPU), RandomModel(config, CPU, outliers=2)
    for name in ("input_norm", "post_attention_norm"):
        before, after = getattr(plain.layer(1), name), getattr(marked.layer(1), name)
        assert torch.equal(after.weight[:2], before.weight[:2] * 5)
        assert torch.equal(after.weight[2:], before.weight[2:])
