"""The checkpoints of a server, asked by the ordinary client: any server will do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from pythia_bento.client import AsyncClient
from pythia_bento.client.options import SamplingOptions
from pythia_bento.errors import InvalidRequest, ModelNotFound, Overloaded, PythiaError
from pythia_bento.protocol.activations import Run
from pythia_bento.protocol.types import Generation, ModelState, Score, ScoreItem
from pythia_bento.sweep.columns import model_id
from pythia_bento.sweep.events import Row, Seconds
from pythia_bento.sweep.here import OF_AN_ITEM, RETRY_SECONDS
from pythia_bento.sweep.inside import InsideTarget
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.questions import extracted, generated, greedy_prefix, share_of, split
from pythia_bento.sweep.source import Facts, Numbered, Target
from pythia_bento.sweep.spec import ExtractTask, GenerateTask, Item, ScoreTask, SweepSpec

BLOCK = 64  # items of a request
AHEAD = 2  # checkpoints: what room the server has is not known here
_Result = TypeVar("_Result")


class Remote:
    """See ``Source``. What a server does not tell, as ranks, is None in rows."""

    def __init__(self, client: AsyncClient, models: Sequence[ModelState]) -> None:
        """``models`` are what the client says that there are, the default first."""
        self._client, self.ahead = client, AHEAD
        self.engines = 1  # as far as this side knows
        self.default = models[0].model
        self._by_id = {id: one for one in models for id in (one.model, *one.aliases)}

    @classmethod
    async def of(cls, client: AsyncClient) -> Remote:
        """Asks what there is; raises what the client does."""
        return cls(client, await client.models())

    async def steps(self, name: str) -> set[int]:
        """See ``Source``."""
        ids = map(model_id, self._by_id)
        return {one.step for one in ids if one.name == name and one.step is not None}

    async def look(self, names: Sequence[str]) -> list[Facts | PythiaError]:
        """See ``Source``."""
        return [self._look(name) for name in names]

    def _look(self, name: str) -> Facts | PythiaError:
        if (found := self._by_id.get(name)) is None:
            return ModelNotFound(f"{name} is not served there", param="model")
        revisions = (model_id(id) for id in (found.model, *found.aliases))
        commit = next((one.revision for one in revisions if one.is_commit), None)
        return Facts(
            found.step, commit, found.weights, found.fingerprint, tuple(found.same_weights)
        )

    async def prepare(self, name: str) -> None:
        """See ``Source``: a server loads what it is asked for."""

    async def open(self, name: str, index: int, spec: SweepSpec) -> Target:
        """See ``Source``."""
        if isinstance(spec.task, ActivationsTask):
            return InsideRemote(self._client, name, spec.task, index, spec.priority)
        return RemoteTarget(self._client, name, index, spec)


class RemoteTarget:
    """See ``Target``."""

    block = BLOCK

    def __init__(self, client: AsyncClient, name: str, index: int, spec: SweepSpec) -> None:
        self._client, self._name, self._index, self._spec = client, name, index, spec
        self._began = self._last = time.monotonic()

    async def rows(self, items: Sequence[Numbered]) -> AsyncGenerator[Row, None]:
        """See ``Target``."""
        blanks = [Row(checkpoint=self._index, item=n, id=item.id) for n, item in items]
        asked = [item for _, item in items]
        for row in await self._answers(asked, blanks):
            self._last = time.monotonic()
            yield row

    def seconds(self) -> Seconds:
        """See ``Target``. What a server does in that time it does not tell."""
        return Seconds(compute=self._last - self._began)

    async def _answers(self, items: Sequence[Item], blanks: Sequence[Row]) -> Sequence[Row]:
        task = self._spec.task
        if isinstance(task, ScoreTask):
            asked = [ScoreItem(one.prompt, one.continuation, logprobs=1) for one in items]
            scores = await self._score(asked)
            return [_scored(*pair, task) for pair in zip(blanks, scores, strict=True)]
        if isinstance(task, ExtractTask):
            return await self._extract(task, items, blanks)
        assert isinstance(task, GenerateTask)  # activations are ``InsideRemote``'s
        pairs = zip(items, blanks, strict=True)
        return await asyncio.gather(*(self._generate(task, *pair) for pair in pairs))

    async def _score(self, items: Sequence[ScoreItem]) -> list[Score | PythiaError]:
        """Those that a full server refused are asked again."""
        found: dict[int, Score | PythiaError] = {}
        while left := [place for place in range(len(items)) if place not in found]:
            asked = [items[place] for place in left]
            scores = await _patient(partial(self._client.score, asked, model=self._name))
            for place, score in zip(left, scores, strict=True):
                if not isinstance(score, Overloaded):
                    found[place] = score
            if len(found) < len(items):
                await asyncio.sleep(RETRY_SECONDS)
        return [found[place] for place in range(len(items))]

    async def _extract(
        self, task: ExtractTask, items: Sequence[Item], blanks: Sequence[Row]
    ) -> list[Row]:
        rows, asked = list(blanks), dict[int, tuple[int, ...]]()
        for place, ids in enumerate(await asyncio.gather(*map(self._ids, items))):
            try:
                asked[place] = split(ids, task)
            except InvalidRequest as error:
                rows[place] = replace(rows[place], error=error)
        cut = task.prompt_tokens
        scores = await self._score(
            [ScoreItem(ids[:cut], ids[cut:], logprobs=1) for ids in asked.values()]
        )
        for (place, ids), score in zip(asked.items(), scores, strict=True):
            row = _scored(rows[place], score, ScoreTask())
            if row.error is None:
                row = extracted(row, task)
                row = await self._free(task, ids, row) if task.share and not row.share else row
            rows[place] = row
        return rows

    async def _ids(self, item: Item) -> tuple[int, ...]:
        parts = [part for part in (item.prompt, item.continuation) if part is not None]
        ids: tuple[int, ...] = ()
        for part in parts:
            if isinstance(part, str):
                part = await _patient(partial(self._client.tokenize, part, model=self._name))
            ids += tuple(part)
        return ids

    async def _free(self, task: ExtractTask, ids: tuple[int, ...], row: Row) -> Row:
        cut = task.prompt_tokens
        options: SamplingOptions = {"max_tokens": task.tokens, "temperature": 0.0}
        made = await self._ask(ids[:cut], {**options, "ignore_eos": True})
        return replace(row, share=share_of(made.outputs[0].token_ids, ids[cut:]))

    async def _generate(self, task: GenerateTask, item: Item, row: Row) -> Row:
        if item.continuation is not None:
            error = InvalidRequest("continuation is for score and extract", param="continuation")
            return replace(row, error=error)
        left_out = {"type", "priority", "prompt_logprobs"}
        options = task.model_dump(exclude=left_out, exclude_none=True, exclude_unset=True)
        options |= {"seed": task.seed, "priority": self._spec.priority}
        options |= {"logit_bias": dict(task.logit_bias)} if task.logit_bias else {}
        try:
            made = (await self._ask(item.prompt, cast(SamplingOptions, options))).outputs[0]
        except OF_AN_ITEM as error:
            return replace(row, error=error)
        logprobs = [token.logprob for token in made.tokens]
        return generated(row, made.text, made.token_ids, made.finish_reason, logprobs, task)

    async def _ask(self, prompt: Any, options: SamplingOptions) -> Generation:
        return await _patient(partial(self._client.generate, prompt, model=self._name, **options))


class InsideRemote(InsideTarget):
    """What is inside of a server's checkpoint."""

    def __init__(
        self, client: AsyncClient, name: str, task: ActivationsTask, index: int, priority: int
    ) -> None:
        super().__init__(task, index, most=None)
        self._client, self._name, self._priority = client, name, priority

    async def ask(self, item: Item) -> Run:
        """See ``InsideTarget``."""
        fields = {"capture": (), **self.task.body(item.prompt, self._priority)}
        found = await self._client.activations(model=self._name, **fields)
        return found[0]


async def _patient(ask: Callable[[], Awaitable[_Result]]) -> _Result:
    """Again and again while the server is full."""
    while True:
        try:
            return await ask()
        except Overloaded as error:
            await asyncio.sleep(min(error.retry_after, RETRY_SECONDS))


def _scored(row: Row, score: Score | PythiaError, task: ScoreTask) -> Row:
    """With what the likeliest token of each place tells of greedy decoding."""
    if isinstance(score, PythiaError):
        if not isinstance(score, OF_AN_ITEM):
            raise score
        return replace(row, error=score)
    ranks = [1 if token.top[0].id == token.id else 2 for token in score.tokens]
    greedy = greedy_prefix(ranks)
    row = replace(
        row,
        logprob=score.logprob,
        num_tokens=score.num_tokens,
        greedy_tokens=greedy,
        is_greedy=greedy == score.num_tokens,
    )
    if not task.tokens:
        return row
    ids, logprobs = [one.id for one in score.tokens], [one.logprob for one in score.tokens]
    return replace(row, token_ids=tuple(ids), logprobs=tuple(logprobs))
