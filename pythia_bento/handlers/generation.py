"""The service's own routes: ``/generate`` and ``/score``, as plain functions over a runner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from pythia_bento.engine.params import SequenceOutput
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import validate
from pythia_bento.errors import PythiaError
from pythia_bento.handlers.requests import best, make_request
from pythia_bento.handlers.streamed import Answer, shown_output, shown_token, shown_tokens
from pythia_bento.protocol.bodies import GenerateRequest, ScoreItem
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner, new_request_id, raise_error, score_request
from pythia_bento.runtime.streams import AsyncStream
from pythia_bento.server.http.errors import error_body
from pythia_bento.server.http.sse import DONE, EventStream, event
from pythia_bento.telemetry.calls import Call, current_call, working_for


async def generate(
    runner: PythiaRunner, body: GenerateRequest, timeout: float | None = None
) -> dict[str, Any]:
    """Continue one prompt ``n`` times; raises what ended a sequence."""
    request = await make_request(runner, new_request_id(), body.prompt, body)
    [answers] = await runner.complete([request], timeout)
    chosen = best([raise_error(answer) for answer in answers], body)
    response = {
        "model": runner.info.id,
        "fingerprint": runner.info.fingerprint,
        "num_prompt_tokens": len(request.prompt),
        "outputs": [shown_output(runner.tokenizer, answer) for answer in chosen],
    }
    if (scored := answers[0].prompt_logprobs) is not None:  # of all but the first token
        response["prompt_tokens"] = shown_tokens(runner.tokenizer, scored)
    return response


async def stream(runner: PythiaRunner, body: GenerateRequest) -> EventStream:
    """``generate`` as events: the parts of the answer, or an error as the last one."""
    request = await make_request(runner, new_request_id(), body.prompt, body)
    outputs = runner.submit([request])
    return EventStream(_events(outputs, Answer(runner, request, body)), outputs)


async def _events(stream: AsyncStream, answer: Answer) -> AsyncIterator[bytes]:
    try:
        async for outputs in stream:
            if part := answer.part(outputs):
                yield event(part) + (DONE if "summary" in part else b"")
    except PythiaError as error:
        yield event(error_body(error))


async def score(
    runner: PythiaRunner, items: Sequence[Any], timeout: float | None = None
) -> list[dict[str, Any]]:
    """One result for each item, in order; an item that fails has ``error`` instead."""
    prepared = [await _prepare(runner, item) for item in items]
    accepted = [item for item in prepared if isinstance(item, _Scoring)]
    try:
        requests = [item.request for item in accepted]
        answers = iter(await runner.complete(requests, timeout, validated=True))
    except PythiaError as error:  # refused as a whole: the server is full or stopping
        return [error_body(item if isinstance(item, PythiaError) else error) for item in prepared]
    return [
        error_body(item) if isinstance(item, PythiaError) else item.result(next(answers)[0])
        for item in prepared
    ]


async def _prepare(runner: PythiaRunner, item: Any) -> _Scoring | PythiaError:
    """Whatever is wrong with an item stays with the item."""
    if isinstance(item, AttributedItem):
        with working_for(item.call):
            return await _prepare(runner, item.item)
    try:
        return await _Scoring.create(runner, parse(ScoreItem, item, "an item"))
    except PythiaError as error:
        return error


@dataclass(frozen=True, slots=True)
class AttributedItem:
    """An item of a batch that has items of several calls, with its own."""

    item: Any
    call: Call | None


def attributed(item: Any) -> AttributedItem:
    """With the current call. BentoML validates its bodies twice, hence what is done stays."""
    return item if isinstance(item, AttributedItem) else AttributedItem(item, current_call())


class _Scoring:
    """One text on its way through the engine."""

    def __init__(self, tokenizer: Tokenizer, item: ScoreItem, ids: Sequence[int], start: int):
        self.request = score_request(tuple(ids), max(item.logprobs, 1))
        self._tokenizer = tokenizer
        self._num_top = item.logprobs
        self._start = start

    @classmethod
    async def create(cls, runner: PythiaRunner, item: ScoreItem) -> _Scoring:
        """Tokenise and check; raises InvalidRequest or ContextLengthExceeded."""
        prompt = await runner.encode(item.prompt)
        rest = () if item.continuation is None else await runner.encode(item.continuation)
        start = 1 if item.continuation is None else max(len(prompt), 1)
        scoring = cls(runner.tokenizer, item, (*prompt, *rest), start)
        validate(scoring.request, runner.limits)
        return scoring

    def result(self, answer: SequenceOutput) -> dict[str, Any]:
        """What the client gets."""
        if answer.error is not None:
            return error_body(answer.error)
        scored = (answer.prompt_logprobs or [])[self._start - 1 :]
        return {
            "logprob": sum(token.logprob for token in scored),
            "num_tokens": len(scored),
            "is_greedy": all(token.logprob == token.top[0][1] for token in scored),
            "tokens": [shown_token(self._tokenizer, token, self._num_top) for token in scored],
        }
