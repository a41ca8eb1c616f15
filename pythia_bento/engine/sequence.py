"""The state of one of the ``n`` continuations of a request."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from typing import Literal

import numpy as np

from pythia_bento.engine.block_pool import ROOT_HASH, hash_block
from pythia_bento.engine.detokenizer import Detokenizer
from pythia_bento.engine.guides import Grammar, Guide
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
        "_bias",
        "_counts",
        "_detokenizer",
        "_early_bias",
        "_grammar",
        "_guide",
        "_names",
        "_stops",
        "arrived",
        "biases",
        "block_size",
        "block_table",
        "blocks",
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
        self.num_scored = 0  # tokens of the prompt whose log-probabilities need no further step
        self.scores: list[PromptLogprobs] = []  # of them in order, once the device has told
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        self.error: PythiaError | None = None  # of one that ended with it
        self._names: list[bytes] = []
        self._counts = TokenCounts(params, request.prompt) if params.has_penalties else None
        self._detokenizer = Detokenizer(
            tokenizer,
            params.stop,
            skip_special_tokens=params.skip_special_tokens,
            include_stop=params.include_stop_str_in_output,
        )
        self._stops: dict[int, int | None] = {id: id for id in params.stop_token_ids}
        self._grammar = grammar
        self._guide: Guide | None = None
        # A text of some form ends where that is complete.
        if not params.ignore_eos or grammar is not None:
            self._stops[tokenizer.eos_id] = None
        self._bias = params.logit_bias
        banned = dict(params.logit_bias) | dict.fromkeys(self._stops, float("-inf"))
        self._early_bias = tuple(banned.items())
        is_filtered = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        self.biases = self._biases()
        # Whether any of its tokens takes more than temperature and seed.
        is_guided = grammar is not None
        self.has_options = is_filtered or bool(self.biases) or params.has_penalties or is_guided

    def _biases(self) -> tuple[tuple[int, float, float], ...]:
        """(token, addend before ``min_tokens``, addend from there on), each token once."""
        late = dict(self._bias)
        has_early = self.params.min_tokens > 0 and not self.is_guided
        early = dict(self._early_bias) if has_early else late
        return tuple((token, value, late.get(token, 0.0)) for token, value in early.items())

    @property
    def is_guided(self) -> bool:
        """Whether each token decides, here, which ones may follow."""
        return self._grammar is not None

    @property
    def guide(self) -> Guide | None:
        """Made when it is first asked for: what waits takes no memory."""
        if self._guide is None and self._grammar is not None:
            self._guide = self._grammar.guide()
        return self._guide

    @property
    def num_generated(self) -> int:
        """Known tokens after the prompt."""
        return self.num_tokens - self.num_prompt

    @property
    def num_wanted(self) -> int:
        """Tokens that it may still generate."""
        return len(self.token_ids) - self.num_tokens

    @property
    def prompt_rows(self) -> range:
        """Prompt positions whose log-probability of the next token is still to be computed.

        The first continuation computes them for all ``n``.
        """
        if self.params.prompt_logprobs is None or self.index > 0:
            return range(0)
        return range(self.num_scored, self.num_prompt - 1)

    def score_to(self, end: int) -> None:
        """Tokens before position ``end`` are computed, and so are the scores of what they ask."""
        if rows := self.prompt_rows:
            self.num_scored = min(max(end, rows.start), rows.stop)

    @property
    def prompt_logprobs(self) -> PromptLogprobs | None:
        """All of them or none: a sequence that was ended early has only some."""
        is_complete = sum(map(len, self.scores)) == self.num_prompt - 1
        if self.params.prompt_logprobs is None or not is_complete:
            return None
        return end_to_end(self.scores)

    @property
    def max_cached_tokens(self) -> int:
        """How far the prefix cache may be used: up to the first row that must be computed."""
        rows = self.prompt_rows
        first = rows.start if rows else self.num_tokens - 1
        missing = None if self.taps is None else self.taps.first_missing
        return first if missing is None else min(first, missing)

    def block_names(self, count: int) -> list[bytes]:
        """Chained hashes of the first ``count`` blocks, all of them full.

        What interventions change is in no block that others read.
        """
        for block in range(len(self._names), count):
            parent = self._names[-1] if self._names else self.root
            if self.taps is not None:
                parent = self.taps.salted(block, parent)
            tokens = self.token_ids[block * self.block_size : (block + 1) * self.block_size]
            self._names.append(hash_block(parent, tokens.tobytes()))
        return self._names[:count]

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

    def sampling_row(self) -> SamplingRow:
        """How to choose the next token."""
        p = self.params
        position = self.num_tokens
        is_early = position - self.num_prompt < p.min_tokens
        guide = self.guide
        bias = self._early_bias if is_early and guide is None else self._bias
        return SamplingRow(
            position=position,
            temperature=p.temperature,
            top_k=p.top_k,
            top_p=p.top_p,
            min_p=p.min_p,
            seed=self.seed,
            bias=bias,
            penalties=self._counts.penalties() if self._counts else None,
            mask=guide.mask(self._stops if is_early else ()) if guide is not None else None,
        )

    def accept(self, token_id: int) -> str:
        """Append a sampled token; returns the text that became certain, may finish the sequence.

        What stops a sequence (end of text, stop id, stop string) is not part of its text, unless
        ``include_stop_str_in_output`` says so.
        """
        self.token_ids[self.num_tokens] = token_id
        self.num_tokens += 1
        if self._counts:
            self._counts.add(token_id)
        generated = self.num_tokens - self.num_prompt
        if token_id in self._stops:
            return self._stop_text(token_id) + self.finish("stop", self._stops[token_id])
        text = self._detokenizer.push(token_id, may_stop=generated >= self.params.min_tokens)
        if self._detokenizer.stopped_by is not None:
            self.finish_reason, self.stop_reason = "stop", self._detokenizer.stopped_by
        elif self._grammar is not None and (end := self._guided_to(token_id)) is not None:
            text += self.finish(end)
        elif generated == self.params.max_tokens:
            text += self.finish("length")
        return text

    def accept_all(self, token_ids: Seq[int]) -> str:
        """``accept`` of one after the other, up to the one that finishes the sequence."""
        if len(token_ids) == 1:  # as always where tokens depend on those before
            return self.accept(token_ids[0])
        generated = self.num_generated + len(token_ids)
        if generated <= self.params.max_tokens and self._stops.keys().isdisjoint(token_ids):
            text = self._detokenizer.push_all(token_ids)
            if text is not None:
                self._append(token_ids)
                is_last = generated == self.params.max_tokens
                return text + self.finish("length") if is_last else text
        text = ""
        for token_id in token_ids:
            text += self.accept(token_id)
            if self.finish_reason is not None:
                break
        return text

    def _append(self, token_ids: Seq[int]) -> None:
        after = self.num_tokens + len(token_ids)
        self.token_ids[self.num_tokens : after] = token_ids
        self.num_tokens = after
        if self._counts:
            for token_id in token_ids:
                self._counts.add(token_id)

    def _guided_to(self, token_id: int) -> FinishReason | None:
        """How a guided sequence ends with this token, if its form says so."""
        guide = self.guide
        assert guide is not None  # of a guided one
        guide.add(token_id)
        self.error = guide.error
        if self.error is not None:
            return "error"
        return "stop" if guide.is_done else None

    def _stop_text(self, token_id: int) -> str:
        if not self.params.include_stop_str_in_output:
            return ""
        return self._detokenizer.push(token_id, may_stop=False)

    def finish(self, reason: FinishReason, stop_reason: int | None = None) -> str:
        """End the sequence; returns the text that was held back."""
        self.finish_reason, self.stop_reason = reason, stop_reason
        return self._detokenizer.flush()
