"""From a shelf's entry to weights that can compute."""

from __future__ import annotations

from collections.abc import Callable

from pythia_bento.checkpoints.read_once import open_entry
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.members import Loaded
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import CheckpointError
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import Kernels
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.runtime.tokenizers import Tokenizers


class Opener:
    """Opens entries of one shape, for one loader's thread."""

    def __init__(self, packer: Kernels, info: ModelInfo, tokenizer: Tokenizer) -> None:
        """``packer`` is a backend of its own: nobody else calls it. ``info`` is of the first."""
        self._packer, self._info = packer, info
        self._num_tokens = tokenizer.num_tokens
        self._tokenizers = Tokenizers()
        self._tokenizers.know(info.checkpoint, tokenizer)

    def load(self, entry: ShelfEntry, on_progress: Callable[[int, int], None]) -> Loaded:
        """Read, compare with the recorded hashes, pack; raises CheckpointError."""
        opened = open_entry(entry)
        tokenizer = self._tokenizers.of(entry, opened.tokenizer)
        if tokenizer.num_tokens != self._num_tokens:
            raise CheckpointError(
                f"{entry.name} will not be served: its tokenizer has {tokenizer.num_tokens} "
                f"tokens, but that of this server has {self._num_tokens}"
            )
        weights = GPTNeoX(opened, self._packer, on_progress).weights
        kept = self._packer.contiguous(weights, bytes.fromhex(entry.weights))
        return Loaded(kept, tokenizer, self._info.of(entry).root)
