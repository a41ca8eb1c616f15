"""From a shelf's entry to weights that can compute."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from pythia_bento.checkpoints.read_ahead import ReadAhead
from pythia_bento.checkpoints.read_once import open_entry
from pythia_bento.checkpoints.reader import there
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.members import Loaded
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import CheckpointError
from pythia_bento.model.kernels.base import Kernels, PackedWeights
from pythia_bento.model.kernels.gpu.host_slabs import Aside, HostSlabs
from pythia_bento.model.kernels.gpu.slab import Filling
from pythia_bento.model.kernels.gpu.uploads import Uploads
from pythia_bento.model.pack import pack
from pythia_bento.model.weights import WeightSource
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.runtime.tokenizers import Tokenizers


class Opener:
    """Opens entries of one shape, for one loader's thread."""

    def __init__(
        self,
        packer: Kernels,
        info: ModelInfo,
        tokenizer: Tokenizer,
        host: HostSlabs | None = None,
        shape: PackedWeights | None = None,
    ) -> None:
        """``packer`` is a backend of its own: nobody else calls it. ``info`` is of the first.

        ``host`` has weights that were on the device before. Where weights are in slabs ``shape`` is
        an ``outline`` of them.
        """
        self._packer, self._info, self._host, self._shape = packer, info, host, shape
        self.ahead = ReadAhead()
        self._aside = Aside(packer.device)
        self._uploads = Uploads(packer.device) if shape else None
        self._num_tokens = tokenizer.num_tokens
        self._tokenizers = Tokenizers()
        self._tokenizers.know(info.checkpoint, tokenizer)

    def load(self, entry: ShelfEntry, on_progress: Callable[[int, int], None]) -> Loaded:
        """Read, compare with the recorded hashes, pack; raises CheckpointError.

        What the host has kept since it was read needs none of that.
        """
        try:
            return self._from_host(entry) or self._from_disk(entry, on_progress)
        finally:  # not meanwhile: it takes the machine's memory for itself
            if self._host:
                threading.Thread(target=self._host.prepare, daemon=True).start()

    def _from_host(self, entry: ShelfEntry) -> Loaded | None:
        if self._host is None or (weights := self._host.get(entry.weights)) is None:
            return None
        tokenizer = self._tokenizers.of(entry)
        return Loaded(weights, tokenizer, self._info.of(entry).root, "host")

    def _from_disk(self, entry: ShelfEntry, on_progress: Callable[[int, int], None]) -> Loaded:
        bring = self._uploads.upload if self._uploads else there
        self.ahead.stop()
        opened = open_entry(entry, bring=bring, on_read=self.ahead.begin)
        with ExitStack() as undo:
            undo.callback(opened.close)
            tokenizer = self._tokenizers.of(entry, opened.tokenizer)
            self._check(entry, tokenizer)
            weights = self._packed(entry, opened, on_progress)
            undo.pop_all()
        # Giving a gigabyte back takes a while, which nobody waits for.
        threading.Thread(target=opened.close, daemon=True).start()
        return Loaded(weights, tokenizer, self._info.of(entry).root)

    def _check(self, entry: ShelfEntry, tokenizer: Tokenizer) -> None:
        if tokenizer.num_tokens != self._num_tokens:
            raise CheckpointError(
                f"{entry.name} will not be served: its tokenizer has {tokenizer.num_tokens} "
                f"tokens, but that of this server has {self._num_tokens}"
            )

    def _packed(
        self, entry: ShelfEntry, source: WeightSource, on_progress: Callable[[int, int], None]
    ) -> PackedWeights:
        """Beside what computes, on a device that can do both."""
        if self._shape is None:
            return pack(source, self._packer, on_progress)
        with self._aside.work():
            slab = Filling(self._shape, bytes.fromhex(entry.weights), self._packer.device)
            weights = slab.whole(pack(source, self._packer, on_progress, slab.place))
        self._aside.hand_over(slab.memory)
        return weights
