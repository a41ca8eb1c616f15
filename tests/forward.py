"""Drives a model over a kernel backend without an engine: blocks laid out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.sampling_row import SamplingRow
from tests.taps import Recorder


@dataclass
class Context:
    """One sequence: its tokens, how many are cached, and its blocks."""

    tokens: list[int]
    blocks: list[int]
    cached: int = 0
    pending: int = field(default=0, init=False)  # tokens of the step being built


class Driver:
    """Runs sequences whose blocks are interleaved in the pool, so that no order helps by luck."""

    def __init__(
        self,
        model: GPTNeoX,
        prompts: Sequence[Sequence[int]],
        room: int,
        taps: Recorder | None = None,
    ) -> None:
        self.model = model
        self.taps = taps
        self.size = model.kernels.block_size
        longest = max(len(prompt) for prompt in prompts) + room
        count = -(-longest // self.size)
        self.cache = model.kernels.allocate_cache(count * len(prompts) + 1)
        self.sequences = [
            Context(list(prompt), [1 + index + i * len(prompts) for i in reversed(range(count))])
            for index, prompt in enumerate(prompts)
        ]

    def hidden(self, active: Sequence[int], chunk: int | None = None) -> Tensor:
        """Run the next ``chunk`` uncached tokens (all of them by default) of some sequences."""
        chosen = [self.sequences[index] for index in active]
        for sequence in chosen:
            left = len(sequence.tokens) - sequence.cached
            sequence.pending = min(chunk or left, left)
        batch = self._batch(chosen)
        if self.taps is not None:
            self.taps.begin(batch)
        hidden = self.model.forward(batch, self.cache, self.taps)
        for sequence in chosen:
            sequence.cached += sequence.pending
        return hidden

    def prefill_logits(self, index: int, chunk: int | None = None) -> Tensor:
        """Logits at every position of a prompt, made chunk by chunk: fp32 [tokens, V]."""
        parts = []
        while self.sequences[index].cached < len(self.sequences[index].tokens):
            parts.append(self.model.logits(self.hidden([index], chunk)).cpu())
        return torch.cat(parts)

    def greedy(self, count: int, num_tokens: int) -> list[list[int]]:
        """Continue all sequences together by ``count`` tokens."""
        active = range(len(self.sequences))
        starts = [len(sequence.tokens) for sequence in self.sequences]
        for _ in range(count):
            hidden = self.hidden(active)
            ends = torch.tensor([s.pending for s in self.sequences]).cumsum(0) - 1
            logits = self.model.logits(hidden[ends.to(hidden.device)])
            rows = [SamplingRow(len(s.tokens), temperature=0) for s in self.sequences]
            chosen = self.model.sample(logits, rows, num_tokens).tolist()
            for sequence, token in zip(self.sequences, chosen, strict=True):
                sequence.tokens.append(token)
        return [s.tokens[start:] for s, start in zip(self.sequences, starts, strict=True)]

    def _batch(self, sequences: Sequence[Context]) -> ForwardBatch:
        tokens, positions, slots, starts = [], [], [], [0]
        for s in sequences:
            span = range(s.cached, s.cached + s.pending)
            tokens += [s.tokens[p] for p in span]
            positions += span
            slots += [s.blocks[p // self.size] * self.size + p % self.size for p in span]
            starts.append(len(tokens))
        lengths = [s.cached + s.pending for s in sequences]
        width = max(-(-length // self.size) for length in lengths)
        tables = [s.blocks[:width] for s in sequences]
        fields = (tokens, positions, slots, starts, lengths, tables)
        device = self.model.kernels.device
        return ForwardBatch(*(torch.tensor(f, dtype=torch.int32, device=device) for f in fields))
