"""What rows of captured decode steps ask for besides temperature, on its way to the device."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import torch

from pythia_bento.engine.sequence import Sequence
from pythia_bento.executor.flights import Row
from pythia_bento.executor.graphs.staging import Staging
from pythia_bento.model.batch import MOST_TOP, RowOptions
from pythia_bento.model.kernels.base import Capturable

MOST_BIASES = 16384  # of all rows; steps of more are chosen eagerly


def fit(sequences: Seq[Sequence]) -> bool:
    """Whether captured steps can do what these sequences ask for.

    Not where one is guided: the host makes a mask of each token before the next is chosen.
    """
    if any(sequence.is_guided for sequence in sequences):
        return False
    alternatives = max((s.params.logprobs or 0 for s in sequences), default=0)
    return alternatives <= MOST_TOP and sum(len(s.biases) for s in sequences) <= MOST_BIASES


def wanted(rows: Seq[Row]) -> bool:
    """Whether captured steps of these rows must, and can, do more than choose by temperature."""
    sequences = [sequence for sequence, _ in rows]
    return any(map(asked, sequences)) and fit(sequences)


def asked(sequence: Sequence) -> bool:
    """Whether it asks for more than tokens by temperature."""
    return sequence.has_options or sequence.params.logprobs is not None


class OptionBuffers:
    """The options of R rows on the device; what a row has seen stays with it there."""

    def __init__(self, kernels: Capturable, rows: int) -> None:
        self._kernels, self._width = kernels, kernels.config.max_positions
        each = ("top_p", "active", "top_k", "min_p", "early", "prompt_lens", "limits")
        sizes = dict.fromkeys(each, rows) | {"bias_starts": rows + 1, "penalties": 3 * rows}
        sizes |= {"bias_ids": MOST_BIASES, "biases": 2 * MOST_BIASES}
        self._staging = Staging(sizes, kernels.device)
        told = {"places": rows, "lengths": rows, "tokens": rows * self._width}
        self._told = Staging(told, kernels.device)
        staged = self._staging.device
        self.limits = staged["limits"]
        shape = 3, rows, self._width
        seen, self._spare = (
            torch.zeros(shape, dtype=torch.int32, device=kernels.device) for _ in range(2)
        )
        self.options = RowOptions(
            active=staged["active"],
            top_k=staged["top_k"],
            top_p=staged["top_p"],
            min_p=staged["min_p"],
            bias_starts=staged["bias_starts"],
            bias_ids=staged["bias_ids"],
            biases=staged["biases"].view(2, MOST_BIASES),
            early=staged["early"],
            penalties=staged["penalties"].view(3, rows),
            prompt_lens=staged["prompt_lens"],
            seen=seen,
            num_seen=staged["early"],  # not read where ``seen`` is kept by position
        )

    def clear(self) -> None:
        """No row has options."""
        self._staging.clear()
        self.limits.fill_(-1)

    def upload(self, rows: Seq[Row], bucket: int) -> None:
        """Describe the rows; those that are left over ask for nothing."""
        count, host = len(rows), self._staging.host()
        sequences = [sequence for sequence, _ in rows]
        params = [sequence.params for sequence in sequences]
        host["active"][:count] = [s.has_options for s in sequences]
        host["active"][count:bucket] = 0
        host["limits"][:count] = [-1 if p.logprobs is None else p.logprobs for p in params]
        host["limits"][count:bucket] = -1
        for name in ("top_k", "top_p", "min_p"):
            host[name][:count] = [getattr(p, name) for p in params]
        host["early"][:count] = [s.num_prompt + s.params.min_tokens for s in sequences]
        penalised = [s.params.has_penalties for s in sequences]
        host["prompt_lens"][:count] = [
            s.num_prompt if has else -1 for s, has in zip(sequences, penalised, strict=True)
        ]
        penalties = host["penalties"].reshape(3, -1)
        for place, name in enumerate(("repetition", "frequency", "presence")):
            penalties[place, :count] = [getattr(p, f"{name}_penalty") for p in params]
        self._staging.send("biases", self._write_biases(sequences, host))

    def _write_biases(self, sequences: Seq[Sequence], host: dict[str, np.ndarray]) -> int:
        """Put the list there; integers of it that are to be sent."""
        lengths = [len(sequence.biases) for sequence in sequences]
        host["bias_starts"][: len(lengths) + 1] = np.cumsum([0, *lengths])
        entries = [entry for sequence in sequences for entry in sequence.biases]
        if not entries:
            return 0
        ids, early, late = zip(*entries, strict=True)
        values = host["biases"].reshape(2, -1)
        host["bias_ids"][: len(ids)] = ids
        values[0, : len(ids)], values[1, : len(ids)] = early, late
        return MOST_BIASES + len(ids)

    def keep(self, rows: Seq[Row], entries: torch.Tensor) -> None:
        """What rows have seen goes with them from their old places, ``entries`` (int32)."""
        if _penalised(rows):
            seen, moved = self.options.seen, self._spare[:, : len(rows)]
            torch.index_select(seen, 1, entries, out=moved)
            seen[:, : len(rows)].copy_(moved)

    def compile(self) -> None:
        """Launch what is no part of a graph, for no token: requests do not wait for compilers."""
        self._launch_recall(1, 1)

    def recall(self, rows: Seq[Row]) -> None:
        """What rows have seen is what the host knows before their next inputs."""
        if not (places := _penalised(rows)):
            return
        host, count = self._told.host(), len(places)
        lengths = [rows[place][1] for place in places]
        stride = max(1, *lengths)
        host["places"][:count], host["lengths"][:count] = places, lengths
        tokens = host["tokens"][: count * stride].reshape(count, stride)
        for told, place in zip(tokens, places, strict=True):
            sequence, start = rows[place]
            told[:start] = sequence.token_ids[:start]
        self._told.send("tokens", tokens.size)
        self._launch_recall(count, stride)

    def _launch_recall(self, count: int, stride: int) -> None:
        device = self._told.device
        self._kernels.recall(
            device["tokens"][: count * stride].view(count, stride),
            device["places"][:count],
            device["lengths"][:count],
            self.options,
        )


def _penalised(rows: Seq[Row]) -> list[int]:
    return [place for place, (s, _) in enumerate(rows) if s.params.has_penalties]
