"""The answer to one prompt while it is being made: what each step brought, and a summary."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pythia_bento.api.timings import Clock
from pythia_bento.engine.params import Request, SequenceOutput, TokenLogprob
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine_thread import Outputs
from pythia_bento.runner import PythiaRunner, raise_error


class Answer:
    """Turns the outputs of one request into parts, in the names that all transports use."""

    def __init__(self, runner: PythiaRunner, asked: Request, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock
        self._unfinished = asked.n
        self._prompt_tokens = len(asked.prompt)
        self._cached_tokens = 0
        self._completion_tokens = 0

    def part(self, outputs: Outputs) -> dict[str, Any]:
        """``deltas``, and with the last ones ``summary``; raises what ended a sequence."""
        deltas = [self._delta(output) for output in outputs]
        self._clock.saw(outputs)
        return {"deltas": deltas} if self._unfinished else {"deltas": deltas, **self._summary()}

    def _delta(self, output: SequenceOutput) -> dict[str, Any]:
        raise_error(output)
        self._unfinished -= output.finish_reason is not None
        self._completion_tokens += len(output.token_ids)
        if output.index == 0:
            self._cached_tokens = output.num_cached_tokens
        return {"index": output.index, **shown_output(self._runner.tokenizer, output)}

    def _summary(self) -> dict[str, Any]:
        summary = {
            "model": self._runner.info.id,
            "fingerprint": self._runner.info.fingerprint,
            "prompt_tokens": self._prompt_tokens,
            "cached_tokens": self._cached_tokens,
            "completion_tokens": self._completion_tokens,
            "timings": asdict(self._clock.timings()),
        }
        return {"summary": summary}


def shown_output(tokenizer: Tokenizer, output: SequenceOutput) -> dict[str, Any]:
    """What is known about a continuation."""
    shown: dict[str, Any] = {
        "text": output.text,
        "token_ids": output.token_ids,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
    }
    if output.logprobs is not None:
        shown["tokens"] = [shown_token(tokenizer, lp, len(lp.top)) for lp in output.logprobs]
    return shown


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
