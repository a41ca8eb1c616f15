"""What a caller asks of the engine, and what the engine answers. Plain data, no policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pythia_bento.errors import PythiaError
from pythia_bento.telemetry.calls import Call, current_call

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to continue a prompt. Validated against a model by ``engine.validate``."""

    max_tokens: int = 16  # 0 with prompt_logprobs scores the prompt and generates nothing
    min_tokens: int = 0  # no end-of-text and no stop before this many tokens
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0  # off the logit of every token that was generated
    frequency_penalty: float = 0.0  # the same for every time it was
    repetition_penalty: float = 1.0  # divides logits (multiplies those below 0), prompt included
    seed: int = 0  # sequence i of a request samples with seed (seed, i)
    logprobs: int | None = None  # None: none; k: chosen token plus the k best
    prompt_logprobs: int | None = None  # the same for every prompt token but the first
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()
    skip_special_tokens: bool = True  # whether the text leaves generated special tokens out
    include_stop_str_in_output: bool = False  # whether the text has what stopped it


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, ``n`` continuations."""

    request_id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    priority: int = 0  # lower goes first among the requests of one caller
    caller: str = "anyone"  # callers take turns
    deadline: float = math.inf  # of time.monotonic(): not begun any more from then on
    # who asked, for log and trace
    call: Call | None = field(default_factory=current_call, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability, and the best alternatives by falling probability."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of a request; queue + prefill + decode = total."""

    queue: float  # from arrival to the first step
    prefill: float  # from there to the first token
    decode: float  # from there to the last one
    total: float


@dataclass(slots=True)
class SequenceOutput:
    """What happened to one sequence in one step: a delta. ``finish_reason`` marks the last one."""

    request_id: str
    index: int  # which of the n continuations
    token_ids: list[int]
    text: str  # text that became certain in this step
    logprobs: list[TokenLogprob] | None = None  # one for each of token_ids
    prompt_logprobs: list[TokenLogprob] | None = None  # for prompt[1:], in the first delta only
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None  # the stop string or id; None for end-of-text
    num_cached_tokens: int = 0  # prompt tokens taken from the prefix cache
    error: PythiaError | None = None  # with finish_reason "error"
    # time.monotonic() when its first step began; when that was is no part of the answer
    started: float = field(default=0.0, compare=False)
    # with the last output of a request, once it has passed the engine's thread
    timings: Timings | None = field(default=None, compare=False)

    def extend(self, delta: SequenceOutput) -> None:
        """Append the next delta of the same sequence: all deltas together are the plain answer."""
        self.token_ids += delta.token_ids
        self.text += delta.text
        if delta.logprobs is not None:
            self.logprobs = (self.logprobs or []) + delta.logprobs
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs = delta.prompt_logprobs
        self.finish_reason = delta.finish_reason
        self.stop_reason = delta.stop_reason
        self.error = delta.error
