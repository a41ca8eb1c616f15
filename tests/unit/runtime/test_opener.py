"""From an entry to weights: read from the disk, or back from the host."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import Shelf, ShelfEntry, entry_of
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import EngineUnavailable, PythiaError
from pythia_bento.model import kernels
from pythia_bento.model.kernels.base import Kernels, PackedWeights
from pythia_bento.model.kernels.gpu.packing import (
    TritonHead,
    TritonLayer,
    pack_head,
    pack_layer,
)
from pythia_bento.model.kernels.gpu.slab import contiguous, outline
from pythia_bento.model.pack import pack
from pythia_bento.model.weights import HeadWeights, LayerWeights
from pythia_bento.runtime import opener as module
from pythia_bento.runtime.loading import _info
from pythia_bento.runtime.opener import Opener
from tests.unit.model.kernels.gpu.packed import CPU


class Host:
    """Keeps what it is given, and says when room was made for more."""

    def __init__(self) -> None:
        self.kept: dict[str, PackedWeights] = {}
        self.prepared = threading.Event()

    def prepare(self) -> None:
        self.prepared.set()

    def get(self, key: str) -> PackedWeights | None:
        return self.kept.get(key)


def test_what_the_host_has_kept_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, host = load_checkpoint("bundled"), Host()
    shelf = Shelf(entry_of(checkpoint), "bundled@*")
    packer = kernels.create("cpu", checkpoint.config, torch.device("cpu"), is_for_packing=True)
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer_path)
    made: Any = host
    opener = Opener(packer, _info(shelf.default, packer), tokenizer, made)
    entry = shelf.find("bundled@step256")
    first = opener.load(entry, lambda done, total: None)
    assert first.source == "disk" and host.prepared.wait(60)
    host.kept[entry.weights] = first.weights
    monkeypatch.setattr(module, "open_entry", None)
    second = opener.load(entry, lambda done, total: None)
    assert second.source == "host"
    assert second.weights is first.weights and second.root == first.root
    assert second.tokenizer is first.tokenizer


class Packer:
    """What a GPU's kernels do to weights, on the CPU."""

    device = CPU

    def load_embedding(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.clone()

    def load_layer(self, layer: LayerWeights) -> TritonLayer:
        return pack_layer(layer, CPU)

    def load_head(self, head: HeadWeights) -> TritonHead:
        return pack_head(head, CPU)


def slab_opener(default: ShelfEntry) -> tuple[Opener, PackedWeights]:
    checkpoint, packer = load_checkpoint("bundled"), cast(Kernels, Packer())
    first = contiguous(pack(checkpoint.source, packer), bytes.fromhex(default.weights))
    kernels_ = kernels.create("cpu", checkpoint.config, CPU, is_for_packing=True)
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer_path)
    made = Opener(packer, _info(default, kernels_), tokenizer, shape=outline(first))
    return made, first


def test_where_weights_are_in_slabs_they_are_packed_into_one() -> None:
    shelf = Shelf(entry_of(load_checkpoint("bundled")), "bundled@*")
    opener, first = slab_opener(shelf.default)
    entry, told = shelf.find("bundled@step64"), list[tuple[int, int]]()
    found = opener.load(entry, lambda *step: told.append(step)).weights
    wanted = contiguous(
        pack(load_checkpoint("bundled@step64").source, cast(Kernels, Packer())),
        bytes.fromhex(entry.weights),
    )
    assert found.slab is not None and wanted.slab is not None and first.slab is not None
    assert torch.equal(found.slab.memory, wanted.slab.memory)
    assert not torch.equal(found.slab.memory, first.slab.memory)
    assert found.slab.tag == bytes.fromhex(entry.weights)
    assert told[-1] == (len(told), len(told)) == (entry.config.num_layers + 2,) * 2


def test_of_a_load_that_fails_nothing_is_left() -> None:
    """Neither threads that read nor files."""
    shelf = Shelf(entry_of(load_checkpoint("bundled")), "bundled@*")
    opener, _ = slab_opener(shelf.default)
    entry = shelf.find("bundled@step64")
    gc.collect()
    others = {*threading.enumerate()}
    opener.load(entry, lambda *step: None)
    changed = replace(entry, files={**entry.files, "model.safetensors": "0" * 64})

    def give_up(done: int, total: int) -> None:
        raise EngineUnavailable("the engine is closed")

    def left() -> tuple[int, list[str]]:
        names = [thread.name for thread in threading.enumerate() if thread not in others]
        return len(os.listdir("/proc/self/fd")), names

    for _ in range(1000):  # what the load that went well gives back
        if not left()[1]:
            break
        time.sleep(0.01)
    before = left()
    for one, report in ((changed, lambda *step: None), (entry, give_up)):
        with pytest.raises(PythiaError, match=r"has sha256|is closed"):
            opener.load(one, report)
        assert left() == before
