"""All checkpoints that a runner serves, by their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from pythia_bento.catalog import nearest
from pythia_bento.checkpoints.shelf import Shelf, ShelfEntry
from pythia_bento.checkpoints.tokenizer_file import read_tokenizer, tokenizer_meaning
from pythia_bento.engine.residents import Residency
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import CheckpointError, ModelNotFound
from pythia_bento.runtime.served import Desk, Served

_ALONE = Residency("device", is_pinned=True)


class ServedModels:
    """Whoever asks by name gets a ``Served``, made once for each set of weights."""

    def __init__(self, default: Served, desk: Desk, shelf: Shelf | None) -> None:
        """Without a ``shelf`` there is ``default`` alone."""
        self._default, self._desk, self._shelf = default, desk, shelf
        self._made: dict[str, Served] = {}  # by weights
        self._tokenizers: dict[str, Tokenizer] = {}  # by meaning
        if default.info.checkpoint is not None:
            self._made[default.info.checkpoint.weights] = default

    async def find(self, name: str) -> Served:
        """The checkpoint of a name; raises ModelNotFound, InvalidRequest or CheckpointError."""
        info = self._default.info
        if name in (info.id, *info.aliases):
            return self._default
        if self._shelf is None:
            raise _not_served(name, info.id, info.aliases)
        entry = await asyncio.to_thread(self._shelf.find, name)
        return self._made.get(entry.weights) or await asyncio.to_thread(self._make, entry)

    async def all(self) -> list[tuple[Served | ShelfEntry, Residency]]:
        """What may be asked for, the default first, then by step, and where its weights are."""
        raise NotImplementedError

    def _make(self, entry: ShelfEntry) -> Served:
        default = self._default
        tokenizer = self._tokenizer(entry)
        limits = replace(default.limits, num_tokens=tokenizer.num_tokens)
        made = Served(self._desk, default.info.of(entry), tokenizer, limits, entry)
        return self._made.setdefault(entry.weights, made)
