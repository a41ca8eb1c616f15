"""What the engine answers: deltas of continuations, and what is made of them. Plain data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.params import Request
from pythia_bento.errors import EngineUnavailable, PythiaError

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(slots=True)
class SequenceOutput:
    """What happened to one sequence in one step: a delta. ``finish_reason`` marks the last one."""

    request_id: str
    index: int  # which of the n continuations
    token_ids: list[int]
    text: str  # text that became certain in this step
    logprobs: list[TokenLogprob] | None = None  # one for each of token_ids
    prompt_logprobs: PromptLogprobs | None = None  # for prompt[1:], in the first delta only
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None  # the stop string or id; None for end-of-text
    num_cached_tokens: int = 0  # prompt tokens taken from the prefix cache
    error: PythiaError | None = None  # with finish_reason "error"
    # time.monotonic() when its first step began; when that was is no part of the answer
    started: float = field(default=0.0, compare=False)

    def copy(self) -> SequenceOutput:
        """One that may be extended."""
        logprobs = None if self.logprobs is None else [*self.logprobs]
        return replace(self, token_ids=[*self.token_ids], logprobs=logprobs)

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


Outputs = list[SequenceOutput]


def failure(request_id: str, index: int, error: PythiaError) -> SequenceOutput:
    """The last output of a sequence that an error ended."""
    return SequenceOutput(request_id, index, [], "", finish_reason="error", error=error)


def collect(
    requests: Sequence[Request], deltas: Iterable[SequenceOutput]
) -> list[list[SequenceOutput]]:
    """Join deltas: for each request its ``n`` continuations in order."""
    answers: dict[tuple[str, int], SequenceOutput] = {}
    for delta in deltas:
        key = (delta.request_id, delta.index)
        if key in answers:
            answers[key].extend(delta)
        else:
            answers[key] = delta
    return [[answers[r.request_id, index] for index in range(r.n)] for r in requests]


def num_inputs(request: Request, output: SequenceOutput) -> int:
    """Tokens that were computed of a sequence that has ended; see ``Request.most_inputs``."""
    return len(request.prompt) + max(len(output.token_ids) - 1, 0)


def raise_error(output: SequenceOutput) -> SequenceOutput:
    """``output`` itself, unless an error or the server ended the sequence."""
    if output.error is not None:
        raise output.error
    if output.finish_reason == "abort":
        raise EngineUnavailable("the server ended the request")
    return output
