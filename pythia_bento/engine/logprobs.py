"""Log-probabilities of tokens: one by one, and of a prompt as columns of numbers. Plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

HEAD = 3  # columns besides the alternatives: ids, log-probabilities, ranks


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability, and the best alternatives by falling probability."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PromptLogprobs:
    """Log-probabilities of N consecutive tokens of a prompt, with k alternatives each.

    A prompt may have thousands, so they are one array from the device to the edges, and objects
    only where somebody iterates.
    """

    columns: Array
    """int32 [HEAD + 2 k, N]: ids, bits of fp32 log-probabilities, ranks; then the same of ids and
    bits for each of the k best, by falling probability."""

    @property
    def ids(self) -> Array:
        """int32 [N], the tokens."""
        ids: Array = self.columns[0]
        return ids

    @property
    def values(self) -> Array:
        """fp32 [N], their log-probabilities."""
        values: Array = self.columns[1].view(np.float32)
        return values

    @property
    def ranks(self) -> Array:
        """int32 [N]: 1 for a token that greedy decoding takes among all rows of the head."""
        ranks: Array = self.columns[2]
        return ranks

    @property
    def num_top(self) -> int:
        """Alternatives of each token."""
        return (len(self.columns) - HEAD) // 2

    @property
    def top_ids(self) -> Array:
        """int32 [k, N], the alternatives."""
        top_ids: Array = self.columns[HEAD : HEAD + self.num_top]
        return top_ids

    @property
    def top_values(self) -> Array:
        """fp32 [k, N], their log-probabilities."""
        return self.columns[HEAD + self.num_top :].view(np.float32)

    def limited(self, num_top: int) -> PromptLogprobs:
        """The same with at most so many alternatives."""
        if num_top >= self.num_top:
            return self
        ids, values = self.top_ids[:num_top], self.columns[HEAD + self.num_top :][:num_top]
        return PromptLogprobs(np.concatenate([self.columns[:HEAD], ids, values]))

    def __len__(self) -> int:
        count: int = self.columns.shape[1]
        return count

    def __getitem__(self, part: slice) -> PromptLogprobs:
        return PromptLogprobs(self.columns[:, part])

    def __iter__(self) -> Iterator[TokenLogprob]:
        pairs = zip(self.ids.tolist(), self.values.tolist(), strict=True)
        if not self.num_top:
            return (TokenLogprob(id, value) for id, value in pairs)
        top_ids, top_values = self.top_ids.T.tolist(), self.top_values.T.tolist()
        return (
            TokenLogprob(id, value, tuple(zip(best, values, strict=True)))
            for (id, value), best, values in zip(pairs, top_ids, top_values, strict=True)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptLogprobs) and np.array_equal(self.columns, other.columns)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # As bytes it crosses to another process in a fraction of the time that numpy's way takes.
        return _from_bytes, (self.columns.tobytes(), self.columns.shape)


def _from_bytes(data: bytes, shape: tuple[int, int]) -> PromptLogprobs:
    return PromptLogprobs(np.frombuffer(data, np.int32).reshape(shape))


def end_to_end(parts: Sequence[PromptLogprobs]) -> PromptLogprobs:
    """Several parts of one prompt as one; none are those of a prompt of one token."""
    if not parts:
        return PromptLogprobs(np.zeros((HEAD, 0), np.int32))
    if len(parts) == 1:
        return parts[0]
    return PromptLogprobs(np.concatenate([part.columns for part in parts], axis=1))
