"""The state of one of the ``n`` continuations of a request."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from typing import Literal

import numpy as np

from pythia_bento.engine.block_pool import ROOT_HASH, hash_block, hash_blocks
from pythia_bento.engine.drafts import Drafts
from pythia_bento.engine.generation import Generation
from pythia_bento.engine.guides import Grammar
from pythia_bento.engine.logprobs import PromptLogprobs, end_to_end
from pythia_bento.engine.outputs import FinishReason
from pythia_bento.engine.params import Request, sequence_seed
from pythia_bento.engine.penalties import TokenCounts
from pythia_bento.engine.tapped import Tapped
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import PythiaError
from pythia_bento.model.sampling_row import SamplingRow

Status = Literal["new", "waiting", "running", "finished"]


class Sequence:
    """Tokens, blocks and text of one continuation. The scheduler alone changes ``status``."""

    __slots__ = (
        "_generation",
        "_names",
        "_score_end",
        "arrived",
        "biases",
        "block_size",
        "block_table",
        "blocks",
        "drafts",
        "error",
        "finish_reason",
        "has_options",
        "index",
        "num_admissions",
        "num_cached_tokens",
        "num_computed",
        "num_prompt",
        "num_published",
        "num_scored",
        "num_tokens",
        "order",
        "params",
        "request",
        "root",
        "scores",
        "seed",
        "started",
        "status",
        "stop_reason",
        "taps",
        "token_ids",
    )

    def __init__(
        self,
        request: Request,
        index: int,
        order: int,
        tokenizer: Tokenizer,
        block_size: int,
        root: bytes = ROOT_HASH,
        grammar: Grammar | None = None,
    ) -> None:
        """``grammar`` is that of the request's constraint."""
        params = request.params
        self.request = request
        self.root = root  # names the weights that compute it, and so what its blocks hold
        self.params = params
        self.index = index
        self.order = (order, index)  # who came first
        self.arrived = time.monotonic()
        self.status: Status = "new"
        self.seed = sequence_seed(params.seed, index)
        self.num_prompt = len(request.prompt)
        self.num_tokens = self.num_prompt  # known: prompt and generated
        self.num_computed = 0  # have their K and V in the cache
        self.num_cached_tokens = 0  # of the prompt, found in the prefix cache
        self.num_admissions = 0  # more than one after a preemption
        self.started = 0.0  # time.monotonic() at the first one
        self.num_published = 0  # full blocks offered to the prefix cache
        self.token_ids = np.zeros(self.num_prompt + params.max_tokens, dtype=np.int32)
        self.token_ids[: self.num_prompt] = request.prompt
        self.taps = Tapped(request, block_size) if request.has_taps else None
        self.block_size = block_size
        self.blocks: list[int] = []
        self.block_table = np.zeros(-(-len(self.token_ids) // block_size), dtype=np.int32)
        is_scored = params.prompt_logprobs is not None and index == 0  # for all ``n``
        self._score_end = self.num_prompt - 1 if is_scored else 0
        self.num_scored = 0  # tokens of the prompt whose log-probabilities need no further step
        self.scores: list[PromptLogprobs] = []  # of them in order, once the device has told
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        self.error: PythiaError | None = None  # of one that ended with it
        self.drafts: Drafts | None = None  # where some are made
        self._names: list[bytes] = []
        self._generation: Generation | None = None
        self.biases: tuple[tuple[int, float, float], ...] = ()
        self.has_options = False
        if params.max_tokens:
            self._generation = generation = Generation(request, tokenizer, grammar)
            self.biases, self.has_options = generation.biases, generation.has_options

    @property
    def generation(self) -> Generation:
        """Of a sequence that generates."""
        assert self._generation is not None
        return self._generation

    @property
    def is_guided(self) -> bool:
        """Whether each token decides, here, which ones may follow."""
        return self._generation is not None and self._generation.is_guided

    @property
    def num_generated(self) -> int:
        """Known tokens after the prompt."""
        return self.num_tokens - self.num_prompt

    @property
    def num_wanted(self) -> int:
        """Tokens that it may still generate."""
        return len(self.token_ids) - self.num_tokens

    @property
    def is_late(self) -> bool:
        """Whether it is not to begin any more."""
        return self.request.deadline <= time.monotonic()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody who has a token of it waits for more, or will before the next step."""
        if len(self.token_ids) - self.num_tokens <= 1:
            return False  # as where none is wanted
        return max(self.num_tokens - 1, self.num_computed) >= self.num_prompt

    @property
    def prompt_rows(self) -> range:
        """Prompt positions whose log-probability of the next token is still to be computed.

        The first continuation computes them for all ``n``.
        """
        return range(self.num_scored, self._score_end)

    def score_to(self, end: int) -> None:
        """Tokens before position ``end`` are computed, and so are the scores of what they ask."""
        if self.num_scored < self._score_end:
            self.num_scored = min(max(end, self.num_scored), self._score_end)

    @property
    def prompt_logprobs(self) -> PromptLogprobs | None:
        """All of them or none: a sequence that was ended early has only some."""
        if self.params.prompt_logprobs is None:
            return None
        is_complete = sum(map(len, self.scores)) == self.num_prompt - 1
        return end_to_end(self.scores) if is_complete else None

    @property
    def max_cached_tokens(self) -> int:
        """How far the prefix cache may be used: up to the first row that must be computed."""
        is_scored = self.num_scored < self._score_end
        first = self.num_scored if is_scored else self.num_tokens - 1
        missing = None if self.taps is None else self.taps.first_missing
        return first if missing is None else min(first, missing)

    def block_names(self, count: int) -> list[bytes]:
        """Chained hashes of the first ``count`` blocks, all of them full.

        What interventions change is in no block that others read.
        """
        names, size = self._names, self.block_size
        if len(names) < count:
            parent = names[-1] if names else self.root
            tokens = self.token_ids[len(names) * size : count * size].tobytes()
            size *= self.token_ids.itemsize
            if self.taps is None:
                names += hash_blocks(parent, tokens, size)
                return names[:count]
            for block in range(len(names), count):
                parent = hash_block(self.taps.salted(block, parent), tokens[:size])
                names.append(parent)
                tokens = tokens[size:]
        return names[:count]

    def hold(self, blocks: list[int]) -> None:
        """Put further blocks at the end of the block table."""
        start = len(self.blocks)
        self.blocks += blocks
        self.block_table[start : len(self.blocks)] = blocks

    def release(self) -> list[int]:
        """Give all blocks away and forget what was computed; tokens and text stay."""
        blocks, self.blocks = self.blocks, []
        self.num_computed = 0
        return blocks

    def sampling_row(self, drafted: int = 0) -> SamplingRow:
        """How to choose the next token, or the one behind so many drafted ones."""
        p, generation, known = self.params, self.generation, self.num_tokens
        position = known + drafted
        is_early = position - self.num_prompt < p.min_tokens
        guide, counts, stops = generation.guide, generation.counts, generation.stops
        bias = generation.early_bias if is_early and guide is None else generation.bias
        return SamplingRow(
            position=position,
            temperature=p.temperature,
            top_k=p.top_k,
            top_p=p.top_p,
            min_p=p.min_p,
            seed=self.seed,
            bias=bias,
            penalties=counts.penalties(self.token_ids[known:position]) if counts else None,
            mask=guide.mask(stops if is_early else ()) if guide is not None else None,
        )

    def accept(self, token_id: int) -> str:
        """Append a sampled token; returns the text that became certain, may finish the sequence.

        What stops a sequence (end of text, stop id, stop string) is not part of its text, unless
        ``include_stop_str_in_output`` says so.
        """
        self.token_ids[self.num_tokens] = token_id
        self.num_tokens += 1
        generation = self.generation
        if generation.counts:
            generation.counts.add(token_id)
        generated = self.num_tokens - self.num_prompt
        if token_id in generation.stops:
            return self._stop_text(token_id) + self.finish("stop", generation.stops[token_id])
        detokenizer = generation.detokenizer
        text = detokenizer.push(token_id, may_stop=generated >= self.params.min_tokens)
        if detokenizer.stopped_by is not None:
            self.finish_reason, self.stop_reason = "stop", detokenizer.stopped_by
        elif generation.is_guided and (end := self._guided_to(token_id)) is not None:
            text += self.finish(end)
        elif generated == self.params.max_tokens:
            text += self.finish("length")
        return text

    def accept_all(self, token_ids: Seq[int]) -> str:
        """``accept`` of one after the other, up to the one that finishes the sequence."""
        if len(token_ids) == 1:  # as always where tokens depend on those before
            return self.accept(token_ids[0])
        generation, generated = self.generation, self.num_tokens - self.num_prompt + len(token_ids)
        is_open = generated <= self.params.max_tokens
        if is_open and generation.stops.keys().isdisjoint(token_ids):
            text = generation.detokenizer.push_all(token_ids)
            if text is not None:
                self._append(token_ids, generation.counts)
                is_last = generated == self.params.max_tokens
                return text + self.finish("length") if is_last else text
        text = ""
        for token_id in token_ids:
            text += self.accept(token_id)
            if self.finish_reason is not None:
                break
        return text

    def _append(self, token_ids: Seq[int], counts: TokenCounts | None) -> None:
        after = self.num_tokens + len(token_ids)
        self.token_ids[self.num_tokens : after] = token_ids
        self.num_tokens = after
        if counts:
            for token_id in token_ids:
                counts.add(token_id)

    def _guided_to(self, token_id: int) -> FinishReason | None:
        """How a guided sequence ends with this token, if its form says so."""
        guide = self.generation.guide
        assert guide is not None  # of a guided one
        guide.add(token_id)
        self.error = guide.error
        if self.error is not None:
            return "error"
        return "stop" if guide.is_done else None

    def _stop_text(self, token_id: int) -> str:
        if not self.params.include_stop_str_in_output:
            return ""
        return self.generation.detokenizer.push(token_id, may_stop=False)

    def finish(self, reason: FinishReason, stop_reason: int | None = None) -> str:
        """End the sequence; returns the text that was held back."""
        self.finish_reason, self.stop_reason = reason, stop_reason
        return self._generation.detokenizer.flush() if self._generation else ""
