"""The answer to one prompt while it is being made: what each step brought, and a summary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from pythia_bento.engine.params import Request, SequenceOutput, Timings, TokenLogprob
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.handlers.requests import best
from pythia_bento.protocol.bodies import Sampling
from pythia_bento.runtime.runner import PythiaRunner, collect, raise_error
from pythia_bento.runtime.streams import Outputs


class Answer:
    """Turns the outputs of one request into parts, in the names that all transports use."""

    def __init__(self, runner: PythiaRunner, asked: Request, body: Sampling) -> None:
        self._runner = runner
        self._asked = asked
        self._body = body
        self._timings: Timings | None = None
        self._unfinished = asked.n
        self._held: Outputs | None = [] if asked.n > body.n else None  # which are best?
        self._cached_tokens = 0
        self._completion_tokens = 0

    def part(self, outputs: Outputs) -> dict[str, Any] | None:
        """``deltas``, ``prompt_tokens`` with the first ones, ``summary`` with the last.

        None while continuations are made of which the best are not known. Raises what ended a
        sequence.
        """
        for output in outputs:
            self._count(raise_error(output))
        if self._held is not None:
            self._held += outputs
            if self._unfinished:
                return None
            outputs = self._best(self._held)
        return self._part(outputs)

    def _count(self, output: SequenceOutput) -> None:
        self._unfinished -= output.finish_reason is not None
        self._completion_tokens += len(output.token_ids)
        self._timings = output.timings or self._timings
        if output.index == 0:
            self._cached_tokens = output.num_cached_tokens

    def _best(self, held: Outputs) -> Outputs:
        [answers] = collect([self._asked], held)
        prompt_logprobs = answers[0].prompt_logprobs
        return [
            replace(answer, index=index, prompt_logprobs=None if index else prompt_logprobs)
            for index, answer in enumerate(best(answers, self._body))
        ]

    def _part(self, outputs: Outputs) -> dict[str, Any]:
        tokenizer = self._runner.tokenizer
        deltas = [{"index": o.index, **shown_output(tokenizer, o)} for o in outputs]
        part: dict[str, Any] = {"deltas": deltas}
        for output in outputs:
            if output.index == 0 and (scored := output.prompt_logprobs) is not None:
                part["prompt_tokens"] = shown_tokens(tokenizer, scored)
        return part if self._unfinished else part | {"summary": self._summary()}

    def _summary(self) -> dict[str, Any]:
        assert self._timings is not None  # they come with the last output
        return {
            "model": self._runner.info.id,
            "fingerprint": self._runner.info.fingerprint,
            "num_prompt_tokens": len(self._asked.prompt),
            "num_cached_tokens": self._cached_tokens,
            "num_completion_tokens": self._completion_tokens,
            "timings": asdict(self._timings),
        }


def shown_output(tokenizer: Tokenizer, output: SequenceOutput) -> dict[str, Any]:
    """What is known about a continuation."""
    shown: dict[str, Any] = {
        "text": output.text,
        "token_ids": output.token_ids,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
    }
    if output.logprobs is not None:
        shown["tokens"] = shown_tokens(tokenizer, output.logprobs)
    return shown


def shown_tokens(tokenizer: Tokenizer, tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Each with all alternatives that were asked for."""
    return [shown_token(tokenizer, token, len(token.top)) for token in tokens]


def shown_token(tokenizer: Tokenizer, token: TokenLogprob, num_top: int) -> dict[str, Any]:
    """A token with its log-probability and ``num_top`` alternatives."""
    shown: dict[str, Any] = {
        "id": token.token_id,
        "text": tokenizer.token_text(token.token_id),
        "logprob": token.logprob,
    }
    if num_top:
        shown["top"] = [
            {"id": id, "text": tokenizer.token_text(id), "logprob": logprob}
            for id, logprob in token.top[:num_top]
        ]
    return shown
