"""What a client gets: the same from every transport, to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pythia_bento.errors import PythiaError

FinishReason = Literal["stop", "length"]
Residence = Literal["disk", "loading", "host", "device", "failed"]
Prompt = str | Sequence[int]  # text, or token ids


@dataclass(frozen=True, slots=True)
class TopToken:
    """An alternative."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    r"""A token; ``text`` is ``bytes:\xe2\x80`` for a part of a character."""

    id: int
    text: str
    logprob: float
    top: tuple[TopToken, ...] = ()  # by falling probability


@dataclass(frozen=True, slots=True)
class Delta:
    """What became known about one continuation; all of an index, end to end, are its answer."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[Token, ...] = ()  # one for each id, if logprobs were asked for
    finish_reason: FinishReason | None = None  # in the last one
    stop_reason: str | int | None = None  # the stop string or id; None for the end of text


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, by the server's clock; queue + prefill + decode = total."""

    queue: float
    prefill: float
    decode: float
    total: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of an answer."""

    model: str
    fingerprint: str  # equal fingerprints, equal answers
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    timings: Timings
    seed: int | None = None  # what was sampled with; None where neither given nor needed


@dataclass(frozen=True, slots=True)
class Part:
    """What one step of the server brought."""

    deltas: tuple[Delta, ...]
    prompt_tokens: tuple[Token, ...] = ()  # all but the first, if prompt_logprobs were asked for
    summary: Summary | None = None  # in the last part


@dataclass(slots=True)
class Output:
    """One whole continuation."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """The ``n`` continuations of a prompt."""

    outputs: list[Output]
    prompt_tokens: tuple[Token, ...]
    summary: Summary

    @property
    def text(self) -> str:
        """Of the first continuation."""
        return self.outputs[0].text


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """A text to score; without ``continuation`` all of the prompt but its first token."""

    prompt: Prompt
    continuation: Prompt | None = None
    logprobs: int = 0  # alternatives to return with each token
    model: str | None = None  # who is to score it; by default who is asked for all items


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability of a text."""

    logprob: float
    num_tokens: int
    is_greedy: bool  # whether each token is the likeliest
    tokens: tuple[Token, ...]


Scores = list[Score | PythiaError]  # of items in order; the error of one that failed


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes; tokens unless named otherwise."""

    context_tokens: int
    vocabulary: int
    cache_tokens: int  # what the KV cache holds
    max_prompt_tokens: int
    max_n: int
    max_sequences: int  # of one request: prompts times n or best_of
    max_logprobs: int
    max_stop: int  # strings
    max_batch_size: int  # sequences
    max_queue: int  # sequences
    request_timeout: float  # seconds
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class Info:
    """What is served."""

    model: str
    aliases: tuple[str, ...]
    fingerprint: str
    limits: Limits
    # Empty where the server does not know:
    version: str = ""  # of pythia-bento
    commit: str | None = None  # 40 hex digits; None for a local directory
    files: dict[str, str] = field(default_factory=dict)  # sha256 of each file of the checkpoint
    weights_sha256: str = ""  # over the names and hashes of ``files``
    quantization: str = ""
    dtype: str = ""
    matmul: str = ""
    backend: str = ""
    batch_invariant: bool = False
    same_weights: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelState:
    """A checkpoint that may be asked for, and where its weights are."""

    model: str
    aliases: tuple[str, ...]  # its other ids
    step: int | None  # of training; None where nobody says
    weights: str  # over the names and hashes of its files: equal ones answer alike
    state: Residence
    pinned: bool  # whether it stays on the device
    nbytes: int  # of its weights
    last_used: float  # Unix time; 0 is never
    fingerprint: str  # equal fingerprints, equal answers
    same_weights: tuple[str, ...]  # other branches that hold the same weights
    error: str = ""  # why it failed


class Joiner:
    """Makes a Generation of parts."""

    def __init__(self) -> None:
        self._outputs: dict[int, Output] = {}
        self._prompt_tokens: tuple[Token, ...] = ()
        self._summary: Summary | None = None

    def add(self, part: Part) -> None:
        """The next part."""
        for delta in part.deltas:
            output = self._outputs.setdefault(delta.index, Output())
            output.text += delta.text
            output.token_ids += delta.token_ids
            output.tokens += delta.tokens
            output.finish_reason = delta.finish_reason
            output.stop_reason = delta.stop_reason
        self._prompt_tokens = part.prompt_tokens or self._prompt_tokens
        self._summary = part.summary or self._summary

    def generation(self) -> Generation:
        """Once all parts were added; raises ValueError before."""
        if self._summary is None:
            raise ValueError("the last part is missing")
        outputs = [self._outputs[index] for index in sorted(self._outputs)]
        return Generation(outputs, self._prompt_tokens, self._summary)


def joined(parts: Iterable[Part]) -> Generation:
    """All parts of an answer as one."""
    joiner = Joiner()
    for part in parts:
        joiner.add(part)
    return joiner.generation()
