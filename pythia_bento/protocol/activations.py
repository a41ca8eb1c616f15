"""What was asked of the inside of forward passes: arrays by the names of sites. Needs numpy."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.protocol.json_types import tokens_of
from pythia_bento.protocol.site_names import OURS, Names, check_names, ours, theirs
from pythia_bento.protocol.tensors import ANSWER, DTYPES, Stored
from pythia_bento.protocol.tensors import read as read_tensors
from pythia_bento.protocol.types import Output

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]


class Run(Mapping[str, Array]):
    """One prompt: its arrays, by the name of their site in the words of ``names``.

    Values are float32 [positions, ...], of attention patterns [heads, queries, keys]; what was made
    of a site has its name with ``:mean``, ``:norm``, ``:project`` or ``:lens_ids`` and the like
    behind it, and ``logits`` are [positions, tokens].
    """

    def __init__(
        self,
        stored: Mapping[str, Stored],
        *,
        tokens: tuple[str, ...],
        token_ids: tuple[int, ...],
        completion: Output | None,
        num_layers: int,
        names: Names = OURS,
    ) -> None:
        """``stored`` is by our names."""
        self._names = names
        self.stored = stored
        """Tensors as the file has them, by our names."""
        self.num_layers = num_layers
        """Of the model."""
        self._arrays: dict[str, Array] = {}  # those that were looked at
        self.tokens = tokens
        """Texts of the prompt's tokens, and of what was generated behind them."""
        self.token_ids = token_ids
        self.completion = completion
        """What was generated; None where nothing was asked for."""

    def __getitem__(self, name: str) -> Array:
        key = name if name in self.stored else _ours(name, self._names)
        if key not in self.stored:
            raise KeyError(f"{shown(name, 100)} was not captured; there are {self._some()}")
        if key not in self._arrays:
            self._arrays[key] = _array(self.stored[key])
        return self._arrays[key]

    def __iter__(self) -> Iterator[str]:
        return (theirs(name, self._names) for name in self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        return f"<Run of {len(self.tokens)} tokens: {self._some()}>"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; for few numbers."""
        completion = self.completion
        return {
            "tokens": list(self.tokens),
            "token_ids": list(self.token_ids),
            "completion": None if completion is None else asdict(completion),
            "num_layers": self.num_layers,
            "tensors": {
                name: {"shape": array.shape, "data": array.ravel().tolist()}
                for name, array in ((name, self[name]) for name in self.stored)
            },
        }

    def torch(self) -> dict[str, Tensor]:
        """All arrays as tensors that share their memory."""
        import torch

        return {name: torch.from_numpy(array) for name, array in self.items()}

    def cache(self) -> dict[str, Tensor]:
        """Activations with a batch of one, for ``transformer_lens.ActivationCache(cache, model)``.

        Names and shapes are TransformerLens' (transformer_lens/ActivationCache.py, "several kinds
        of activations"), whatever ``names`` were asked for: [1, positions, ...], and patterns
        [1, heads, queries, keys]. ``ln_final.hook_normalized`` is that of a model whose norms were
        not folded (``from_pretrained_no_processing``).
        """
        import torch

        return {
            name: torch.from_numpy(self[name])[None]
            for name in self.stored
            if "hook_" in name and ":" not in name
        }

    def hidden_states(self) -> tuple[Tensor, ...]:
        """As ``output_hidden_states`` of transformers: layers + 1 of [1, positions, hidden].

        The first are what each layer reads; the last is behind the final norm. Raises
        InvalidRequest where one of them was not captured.
        """
        import torch

        names = [*map(self._read_by, range(self.num_layers)), "ln_final.hook_normalized"]
        missing = [name for name in names if name not in self.stored]
        if missing:
            raise InvalidRequest(
                f"hidden_states needs {missing[0]}; capture blocks.*.hook_resid_pre and "
                "ln_final.hook_normalized",
                param="capture",
            )
        return tuple(torch.from_numpy(self[name])[None] for name in names)

    def _read_by(self, layer: int) -> str:
        """What a layer reads, by any of its names: one layer's output is the next one's input."""
        name = f"blocks.{layer}.hook_resid_pre"
        other = f"blocks.{layer - 1}.hook_resid_post" if layer else "hook_embed"
        return other if name not in self.stored and other in self.stored else name

    def _some(self) -> str:
        names = list(self)
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _ours(name: str, names: Names) -> str:
    site, colon, rest = name.partition(":")
    return ours(site, names) + colon + rest


@dataclass(frozen=True, slots=True)
class Activations(Sequence[Run]):
    """One ``Run`` for each prompt, in order."""

    runs: tuple[Run, ...]
    model: str
    fingerprint: str
    """Equal ones, equal numbers; interventions are part of it."""

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...

    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)


def read(file: bytes | bytearray | memoryview, names: Names = OURS) -> Activations:
    """An answer of ``/v1/activations``, or a file of a sweep, whose items are its prompts then.

    Arrays are views of ``file`` where they are float32. Raises ValueError, KeyError or TypeError
    where it is none.
    """
    tensors, metadata = read_tensors(file, ANSWER)
    by_prompt: dict[int, dict[str, Stored]] = defaultdict(dict)
    for name, tensor in tensors.items():
        prompt, _, site = name.partition(":")
        by_prompt[int(prompt)][site] = tensor
    tokens, completions = (json.loads(metadata[name]) for name in ("tokens", "completions"))
    layers = int(metadata["num_layers"])
    runs = (
        run_of(by_prompt[prompt], *told, layers, names)
        for prompt, told in enumerate(zip(tokens, completions, strict=True))
    )
    return Activations(tuple(runs), metadata["model"], metadata["system_fingerprint"])


def open_activations(path: str | Path, names: str = OURS) -> Activations:
    """A file of ``curl -o``, or of a sweep, of which is read what is looked at.

    Raises InvalidRequest where it is none, and OSError.
    """
    try:
        # Whoever changes an array changes a copy of its page, not the file.
        file = np.memmap(path, np.uint8, "c")
        return read(file.data, check_names(names))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{path} is no file of activations: {error}") from None


def run_of(
    stored: dict[str, Stored],
    tokens: Sequence[str],
    completion: Mapping[str, Any] | None,
    num_layers: int,
    names: Names = OURS,
) -> Run:
    """Of what a file says of one prompt; a prompt that failed has no ``token_ids``."""
    ids = stored.pop("token_ids", None)
    return Run(
        stored,
        tokens=tuple(tokens),
        token_ids=() if ids is None else tuple(ids.raw().tolist()),
        completion=None if completion is None else _output(completion),
        num_layers=num_layers,
        names=names,
    )


def from_dict(body: Mapping[str, Any]) -> Run:
    """Of ``as_dict``; raises ValueError, KeyError or TypeError where it is none."""
    return Run(
        {name: _stored(name, one) for name, one in body["tensors"].items()},
        tokens=tuple(body["tokens"]),
        token_ids=tuple(body["token_ids"]),
        completion=None if body["completion"] is None else _output(body["completion"]),
        num_layers=int(body["num_layers"]),
    )


def _stored(name: str, one: Mapping[str, Any]) -> Stored:
    dtype = "I32" if name.endswith(":lens_ids") else "F32"
    return Stored(dtype, tuple(one["shape"]), np.array(one["data"], DTYPES[dtype]).data)


def _array(tensor: Stored) -> Array:
    """Numbers that torch takes as they are, without a copy where they are float32 or int32."""
    array = tensor.raw() if tensor.dtype == "I32" else tensor.widened()
    return array if array.flags.aligned and array.flags.writeable else array.copy()


def _output(body: Mapping[str, Any]) -> Output:
    return Output(
        text=body["text"],
        token_ids=list(body["token_ids"]),
        tokens=list(tokens_of(body.get("tokens", ()))),
        finish_reason=body["finish_reason"],
        stop_reason=body["stop_reason"],
    )
