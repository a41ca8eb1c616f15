"""From an item to what an engine is asked, and from its answers to a row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pythia_bento.engine.logprobs import PromptLogprobs
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams, new_request_id, score_request
from pythia_bento.errors import InvalidRequest
from pythia_bento.handlers.requests import best, make_request, scored_ids
from pythia_bento.runtime.served import Served
from pythia_bento.sweep.events import Row
from pythia_bento.sweep.spec import ExtractTask, GenerateTask, Item, ScoreTask, Task


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and what its continuations mean: a row, or one question more."""

    request: Request
    read: Callable[[list[SequenceOutput]], Awaitable[Row | Question]]
    row: Row  # which names checkpoint and item


async def question(task: Task, served: Served, item: Item, row: Row) -> Question:
    """What to ask of an item; raises InvalidRequest. ``row`` names checkpoint and item."""
    if isinstance(task, ScoreTask):
        return await _score(task, served, item, row)
    if isinstance(task, ExtractTask):
        return await _extract(task, served, item, row)
    assert isinstance(task, GenerateTask)  # activations are ``inside``'s
    return await _generate(task, served, item, row)


async def _score(task: ScoreTask, served: Served, item: Item, row: Row) -> Question:
    ids, start = await scored_ids(served, item.prompt, item.continuation)

    async def read(answers: list[SequenceOutput]) -> Row:
        return _scored(row, _scores(answers, start), with_tokens=task.tokens)

    return Question(score_request(ids, 0), read, row)


def _scores(answers: list[SequenceOutput], start: int) -> PromptLogprobs:
    scored = answers[0].prompt_logprobs
    assert scored is not None  # where there is no error
    return scored[start - 1 :]


def _scored(row: Row, scored: PromptLogprobs, *, with_tokens: bool) -> Row:
    values, ranks = scored.values.tolist(), scored.ranks.tolist()
    greedy = greedy_prefix(ranks)
    row = replace(
        row,
        logprob=sum(values),
        num_tokens=len(values),
        greedy_tokens=greedy,
        is_greedy=greedy == len(values),
    )
    if not with_tokens:
        return row
    ids = tuple(scored.ids.tolist())
    return replace(row, token_ids=ids, logprobs=tuple(values), ranks=tuple(ranks))


def greedy_prefix(ranks: Sequence[int]) -> int:
    """How many of the first tokens greedy decoding takes."""
    return next((place for place, rank in enumerate(ranks) if rank != 1), len(ranks))


async def _extract(task: ExtractTask, served: Served, item: Item, row: Row) -> Question:
    ids, _ = await scored_ids(served, item.prompt, item.continuation)
    ids = split(ids, task)

    async def read(answers: list[SequenceOutput]) -> Row | Question:
        scored = _scored(row, _scores(answers, task.prompt_tokens), with_tokens=False)
        found = extracted(scored, task)
        return found if found.share is not None or not task.share else _free(task, ids, found)

    return Question(score_request(ids, 0), read, row)


def split(ids: tuple[int, ...], task: ExtractTask) -> tuple[int, ...]:
    """As many ids as the task looks at; raises InvalidRequest where there are fewer."""
    wanted = task.prompt_tokens + task.tokens
    if len(ids) < wanted:
        raise InvalidRequest(
            f"prompt has {len(ids)} tokens, but extract takes {task.prompt_tokens} and "
            f"{task.tokens} of each",
            param="prompt",
        )
    return ids[:wanted]


def extracted(row: Row, task: ExtractTask) -> Row:
    """A scored row by the words of this task; its share is known where all tokens are greedy."""
    share = 1.0 if task.share and row.is_greedy else None
    return replace(row, matched=row.greedy_tokens, extractable=row.is_greedy, share=share)


def _free(task: ExtractTask, ids: tuple[int, ...], row: Row) -> Question:
    """What it continues with where nothing of the item is shown but the prompt."""
    params = SamplingParams(max_tokens=task.tokens, temperature=0.0, ignore_eos=True)

    async def read(answers: list[SequenceOutput]) -> Row:
        return replace(row, share=share_of(answers[0].token_ids, ids[task.prompt_tokens :]))

    return Question(Request(new_request_id(), ids[: task.prompt_tokens], params), read, row)


def share_of(made: Sequence[int], wanted: Sequence[int]) -> float:
    """The part of ``wanted`` that is in its place."""
    return sum(one == other for one, other in zip(made, wanted, strict=False)) / len(wanted)


async def _generate(task: GenerateTask, served: Served, item: Item, row: Row) -> Question:
    if item.continuation is not None:
        raise InvalidRequest("continuation is for score and extract", param="continuation")
    request = await make_request(served, new_request_id(), item.prompt, task)

    async def read(answers: list[SequenceOutput]) -> Row:
        [answer] = await best(answers, task)
        logprobs = [token.logprob for token in answer.logprobs or ()]
        return generated(row, answer.text, answer.token_ids, answer.finish_reason, logprobs, task)

    return Question(request, read, row)


def generated(
    row: Row,
    text: str,
    ids: Sequence[int],
    reason: str | None,
    logprobs: Sequence[float],
    task: GenerateTask,
) -> Row:
    """A continuation as a row; log-probabilities are told where they were asked for."""
    row = replace(row, text=text, token_ids=tuple(ids), num_tokens=len(ids), finish_reason=reason)
    if task.logprobs is None:
        return row
    return replace(row, logprob=sum(logprobs), logprobs=tuple(logprobs))
