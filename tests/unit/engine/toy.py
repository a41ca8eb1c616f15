"""A model without arithmetic: its next token is a hash of the context it reads from the cache.

Of its inside there is what is kept of a token (``hook_embed``, which decides what is cached) and
the hash of a context (``blocks.0.hook_resid_post``), one number each.

It reads every token of the context through the block table, so a wrong slot, a stale block or a
block of somebody else changes the answer. That makes it sharper than a real model for testing
memory and scheduling, and fast enough for thousands of random cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Chunk, ChunkResult, EngineConfig, Results
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.validate import Limits
from pythia_bento.executor.model_runner import ModelRunner
from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sampling import masked, penalised
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.sites import EMBED, RESID_POST, Place
from pythia_bento.model.taps import Taps
from tests.tokenizer_parts import small_tokenizer

torch.set_num_threads(1)  # tensors this small only lose by threads

TOKENIZER = small_tokenizer()
ROWS = TOKENIZER.num_tokens + 12  # as in Pythia: more rows than tokens
POISON = 100  # after this token all logits are NaN
WEIGHTS = 2**16  # a toy's weights are a number, and this times that is in each key
BLOCK_SIZE, MAX_POSITIONS = 4, 64
CONFIG = ModelConfig(1, 1, 1, 4, ROWS, MAX_POSITIONS, 0)
Before = Callable[[Sequence[Chunk]], object]


class ToyModel:
    """Stands where GPTNeoX stands."""

    def __init__(self, block_size: int = BLOCK_SIZE, max_positions: int = MAX_POSITIONS) -> None:
        self.weights: int | None = 0
        self.config = replace(CONFIG, max_positions=max_positions)
        self.kernels = SimpleNamespace(
            name="toy",
            device=torch.device("cpu"),
            scored_at_once=64,
            block_size=block_size,
            allocate_cache=lambda count: torch.full((count * block_size, 2), -1),
        )

    def forward(self, batch: ForwardBatch, cache: Tensor, taps: Taps | None = None) -> Tensor:
        """Hash of each row's context, -1 where the context holds POISON: fp32 [T, 1]."""
        assert self.weights is not None
        embedded = _shown(Place(EMBED), batch.token_ids.float()[:, None], taps)
        # What a layer would write depends on its weights.
        keys = embedded[:, 0].int() + WEIGHTS * self.weights
        cache[batch.slots.long()] = torch.stack([keys, batch.positions], dim=1).long()
        starts, size = batch.query_starts.tolist(), self.kernels.block_size
        rows: list[int] = []
        for index, length in enumerate(batch.context_lens.tolist()):
            where = torch.arange(length)
            slots = batch.block_tables[index, where // size].long() * size + where % size
            hashes = _hashes(cache[slots].tolist())
            rows += hashes[length - (starts[index + 1] - starts[index]) :]
        hidden = torch.tensor(rows, dtype=torch.float32)[:, None]
        return _shown(Place(RESID_POST), hidden, taps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Pseudo-random in [0, 8): fp32 [R, V]."""
        mixed = (hidden.long() * 7919 + torch.arange(ROWS) * 104729) * 2654435761 % 2**31
        logits = mixed.float() / 2**28
        return torch.where(hidden < 0, torch.nan, logits)

    def sample(self, logits: Tensor, rows: list[SamplingRow], num_tokens: int) -> Tensor:
        """Best of logits, bias and noise by seed, among what masks leave."""
        logits, chosen = masked(logits, rows), []
        for row, values in zip(rows, logits[:, :num_tokens], strict=True):
            ids = torch.arange(num_tokens)
            mixed = (ids * 31 + row.seed % 1009 * 17 + row.position * 7) * 2654435761
            noise = mixed % 2**31 / 2**31
            total = values + noise * row.temperature
            for id, addend in row.bias:
                total[id] += addend
            total = penalised(total, row.penalties)
            chosen.append(-1 if values.isnan().any() else int(total.argmax()))
        return torch.tensor(chosen, dtype=torch.int32)

    def scores(self, hidden: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``GPTNeoX.scores``."""
        return self.logprobs(self.logits(hidden), chosen, num_top)

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """Exact log-softmax."""
        values = logits.log_softmax(-1)
        top, ids = values.sort(dim=-1, descending=True, stable=True)
        own = values.gather(1, chosen.long().clamp(min=0)[:, None])[:, 0]
        ranks = (ids == chosen.long()[:, None]).int().argmax(1).int() + 1
        return Logprobs(own, ranks, ids[:, :num_top].int(), top[:, :num_top])


def _shown(place: Place, rows: Tensor, taps: Taps | None) -> Tensor:
    if taps is not None and taps.wants(place):
        taps.at(place, rows)
    return rows


def _hashes(context: list[list[int]]) -> list[int]:
    value, out, poisoned = 1, [], False
    for token, position in context:
        value = (value * 31 + token * 7 + position) % 2**20
        poisoned |= token % WEIGHTS == POISON
        out.append(-1 if poisoned else value)
    return out


class ToyExecutor(ModelRunner):
    """Calls ``before`` with the chunks ahead of every step: to watch, to wait, to fail."""

    def __init__(self, model: ToyModel, config: EngineConfig, before: Before | None = None) -> None:
        super().__init__(model, config, TOKENIZER.num_tokens)  # type: ignore[arg-type]
        self._before = before

    def _execute(self, chunks: Sequence[Chunk], others_wait: bool) -> Results:
        if self._before:
            self._before(chunks)
        return super()._execute(chunks, others_wait)


class LateExecutor(ToyExecutor):
    """Tells what a pass over prompts has found when it is asked, as a GPU's executor does."""

    def _execute(self, chunks: Sequence[Chunk], others_wait: bool) -> Results:
        results = super()._execute(chunks, others_wait)
        are_prompts = all(chunk.count - chunk.drafted > 1 for chunk in chunks)
        if not any(chunk.samples for chunk in chunks) or (others_wait and are_prompts):
            postpone(results)
        return results


def postpone(results: Results) -> None:
    """Have them say what they found when they are asked."""
    for result in results:
        if result and (result.prompt_logprobs or result.token_ids):
            result.complete = _hidden(result)


def _hidden(result: ChunkResult) -> Callable[[], None]:
    known = result.prompt_logprobs, result.token_ids, result.logprobs, result.is_finite
    result.prompt_logprobs, result.token_ids, result.logprobs = None, [], []
    result.is_finite = True

    def complete() -> None:
        result.prompt_logprobs, result.token_ids, result.logprobs, result.is_finite = known
        result.complete = None

    return complete


def toy_engine(
    num_blocks: int = 64,
    *,
    block_size: int = BLOCK_SIZE,
    before: Before | None = None,
    limits: Limits | None = None,
    kind: type[ToyExecutor] = ToyExecutor,
    **sizes: int,
) -> Engine:
    """An engine over a toy model; see ``ToyExecutor``."""
    config = EngineConfig(num_blocks, **sizes)
    return Engine(kind(ToyModel(block_size), config, before), TOKENIZER, limits)


def request(id: str = "r", prompt: tuple[int, ...] = (5, 6, 7), n: int = 1, **params) -> Request:
    """A request with a few tokens."""
    return Request(id, prompt, SamplingParams(**params), n)
