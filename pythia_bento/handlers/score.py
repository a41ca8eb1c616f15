"""``score``: log-probabilities of texts, each by the checkpoint that it names."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from pythia_bento.engine.logprobs import PromptLogprobs
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, score_request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import check_alternatives, check_items
from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.handlers.requests import scored_ids
from pythia_bento.handlers.streamed import shown_prompt
from pythia_bento.protocol.bodies import ScoreItem
from pythia_bento.protocol.errors import ErrorBody, error_body
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.served_models import ServedModels
from pythia_bento.runtime.turns import Turns
from pythia_bento.telemetry.calls import CallContext, current_call

MAX_MODELS = 256  # that the items of one call may name
MAX_UNKNOWN = 16  # of these: to find what a wrong name is like takes long

Show = Callable[[Tokenizer, PromptLogprobs], Awaitable[Any]]
"""Makes what a transport says of tokens."""


async def score(
    runner: PythiaRunner,
    items: Sequence[Any],
    model: str | None = None,
    timeout: float | None = None,
    show: Show = shown_prompt,
) -> list[Scored | ErrorBody]:
    """One result for each item, in order; an item that fails has ``error`` instead.

    ``model`` answers for items that name none. Raises ModelNotFound where it is not served, and
    InvalidRequest where there are too many items.
    """
    return [result async for result in await scored(runner, items, model, timeout, show)]


async def scored(
    runner: PythiaRunner,
    items: Sequence[Any],
    model: str | None = None,
    timeout: float | None = None,
    show: Show = shown_prompt,
) -> AsyncIterator[Scored | ErrorBody]:
    """``score``, whose results are made one by one: all are known, and few are held at a time."""
    served = await runner.served(model)
    check_items(len(items), served.limits)
    batch = _Batch(runner.models, served)
    prepared = [await batch.prepare(attributed(item)) for item in items]
    accepted = [item for item in prepared if isinstance(item, _Scoring)]
    answers = await _answers(accepted, timeout)
    answers.reverse()
    return _results(prepared, answers, show)


async def _answers(accepted: Sequence[_Scoring], timeout: float | None) -> list[SequenceOutput]:
    """Of each in order: all are asked at the same time, of each checkpoint its own."""
    calls = {item.request.request_id: item.call for item in accepted}
    asked: dict[Served, list[Request]] = {}
    for item in accepted:
        asked.setdefault(item.served, []).append(item.request)
    if len(asked) == 1:
        [(served, requests)] = asked.items()
        return await served.score(requests, timeout, calls)
    parts = await asyncio.gather(
        *(served.score(requests, timeout, calls) for served, requests in asked.items())
    )
    by_id = {answer.request_id: answer for answers in parts for answer in answers}
    return [by_id[item.request.request_id] for item in accepted]


async def _results(
    prepared: Sequence[_Scoring | PythiaError], answers: list[SequenceOutput], show: Show
) -> AsyncIterator[Scored | ErrorBody]:
    """Results one by one, and others in between: one may have a context's tokens to show.

    ``answers``, last first, are freed one by one: all at once would take as long as to make them.
    """
    turns = Turns()
    for item in prepared:
        if isinstance(item, PythiaError):
            yield error_body(item)
        else:
            yield await item.result(answers.pop(), show)
        await turns.take()


class _Batch:
    """Items of several calls on their way to becoming requests."""

    def __init__(self, models: ServedModels, default: Served) -> None:
        self._models, self._default = models, default
        self._found: dict[str, Served | PythiaError] = {}  # by name
        self._named: dict[int, set[str]] = defaultdict(set)  # by call, and so below
        self._unknown: dict[int, int] = defaultdict(int)
        self._alternatives: dict[int, int] = defaultdict(int)

    async def prepare(self, attributed: AttributedItem) -> _Scoring | PythiaError:
        """Parse and tokenise; whatever is wrong with an item stays with the item."""
        try:
            item, call = parse(ScoreItem, attributed.item, "an item"), id(attributed.call)
            served = await self._served(item.model, call)
            ids, start = await scored_ids(served, item.prompt, item.continuation)
            most = served.limits.max_logprobs
            count = self._alternatives[call] + min(item.logprobs, most) * len(ids)
            check_alternatives(count)
            self._alternatives[call] = count
        except PythiaError as error:
            return error
        return _Scoring(score_request(ids, item.logprobs), attributed.call, start, served)

    async def _served(self, name: str | None, call: int) -> Served:
        if name is None:
            return self._default
        if name not in self._named[call]:
            self._check_room(call)
            self._named[call].add(name)
            if name not in self._found:
                self._found[name] = await self._look_up(name)
            self._unknown[call] += isinstance(self._found[name], PythiaError)
        found = self._found[name]
        if isinstance(found, PythiaError):
            raise type(found)(found.message, param=found.param)
        return found

    def _check_room(self, call: int) -> None:
        """Raise InvalidRequest where a call has named too many."""
        for count, most, what in (
            (len(self._named[call]), MAX_MODELS, "models"),
            (self._unknown[call], MAX_UNKNOWN, "models that cannot be had"),
        ):
            if count >= most:
                raise InvalidRequest(
                    f"the items of this request name more than {most} {what}", param="model"
                )

    async def _look_up(self, name: str) -> Served | PythiaError:
        try:
            return await self._models.find(name)
        except PythiaError as error:
            return error


@dataclass(frozen=True, slots=True)
class AttributedItem:
    """An item of a batch that has items of several calls, with its own."""

    item: Any
    call: CallContext | None


def attributed(item: Any) -> AttributedItem:
    """With the current call. BentoML validates its bodies twice, hence what is done stays."""
    return item if isinstance(item, AttributedItem) else AttributedItem(item, current_call())


def unattributed(item: AttributedItem) -> Any:
    """As it came, and as BentoML's client in another service sends it."""
    return item.item


class Scored(TypedDict):
    """Log-probability of a text."""

    logprob: float
    num_tokens: int
    is_greedy: bool
    tokens: Any  # as the transport shows them


@dataclass(frozen=True, slots=True)
class _Scoring:
    """One text on its way through the engine."""

    request: Request
    call: CallContext | None
    start: int  # of the tokens that are asked for; none of them is the text's first
    served: Served

    async def result(self, answer: SequenceOutput, show: Show) -> Scored | ErrorBody:
        """What the client gets."""
        if answer.error is not None:
            return error_body(answer.error)
        assert answer.prompt_logprobs is not None  # where there is no error
        scored = answer.prompt_logprobs[self.start - 1 :]
        return {
            "logprob": sum(scored.values.tolist()),
            "num_tokens": len(scored),
            "is_greedy": bool((scored.ranks == 1).all()),
            "tokens": await show(self.served.tokenizer, scored),
        }
