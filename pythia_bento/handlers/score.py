"""``score``: log-probabilities of texts, over a runner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from pythia_bento.engine.logprobs import PromptLogprobs
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, score_request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import check_alternatives, check_items
from pythia_bento.errors import PythiaError
from pythia_bento.handlers.streamed import shown_prompt
from pythia_bento.protocol.bodies import ScoreItem
from pythia_bento.protocol.errors import ErrorBody, error_body
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.turns import Turns
from pythia_bento.telemetry.calls import CallContext, current_call

Show = Callable[[Tokenizer, PromptLogprobs], Awaitable[Any]]
"""Makes what a transport says of tokens."""


async def score(
    runner: PythiaRunner,
    items: Sequence[Any],
    timeout: float | None = None,
    show: Show = shown_prompt,
) -> list[Scored | ErrorBody]:
    """One result for each item, in order; an item that fails has ``error`` instead.

    Raises InvalidRequest where there are too many.
    """
    return [result async for result in await scored(runner, items, timeout, show)]


async def scored(
    runner: PythiaRunner,
    items: Sequence[Any],
    timeout: float | None = None,
    show: Show = shown_prompt,
) -> AsyncIterator[Scored | ErrorBody]:
    """``score``, whose results are made one by one: all are known, and few are held at a time."""
    check_items(len(items), runner.limits)
    alternatives: dict[int, int] = defaultdict(int)
    prepared = [await _prepare(runner, attributed(item), alternatives) for item in items]
    accepted = [item for item in prepared if isinstance(item, _Scoring)]
    calls = {item.request.request_id: item.call for item in accepted}
    answers = await runner.score([item.request for item in accepted], timeout, calls)
    answers.reverse()
    return _results(prepared, answers, show)


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


async def _prepare(
    runner: PythiaRunner, attributed: AttributedItem, alternatives: dict[int, int]
) -> _Scoring | PythiaError:
    """Parse and tokenise; whatever is wrong with an item stays with the item.

    ``alternatives`` counts those that each call asks for.
    """
    try:
        item = parse(ScoreItem, attributed.item, "an item")
        ids, start = await runner.encode(item.prompt), 1
        if item.continuation is not None:
            start = max(len(ids), 1)
            ids += await runner.encode(item.continuation, "continuation")
        call, most = id(attributed.call), runner.limits.max_logprobs
        count = alternatives[call] + min(item.logprobs, most) * len(ids)
        check_alternatives(count)
        alternatives[call] = count
    except PythiaError as error:
        return error
    request = score_request(ids, item.logprobs)
    return _Scoring(request, attributed.call, start, runner.tokenizer)


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
    tokenizer: Tokenizer

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
            "tokens": await show(self.tokenizer, scored),
        }
