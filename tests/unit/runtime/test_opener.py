"""From an entry to weights: read from the disk, or back from the host."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import Shelf, entry_of
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.model import kernels
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.runtime import opener as module
from pythia_bento.runtime.loading import _info
from pythia_bento.runtime.opener import Opener


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
