"""``patch``: one prompt with one place of another's after the other, and what each does.

Every cell of the matrix is the corrupted prompt with one place as it was in the clean one:
TransformerLens' activation patching. Cells are computed some at a time, whose values are few
enough to be held, and captured of the clean prompt just before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from typing_extensions import NotRequired

from pythia_bento.engine.capture import Capture, LogitsTap, Tap
from pythia_bento.engine.inside_limits import width
from pythia_bento.engine.interventions import Intervention, Interventions, interventions
from pythia_bento.engine.outputs import SequenceOutput, raise_error
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.engine.validate import check_ids
from pythia_bento.errors import ContextLengthExceeded, InvalidRequest, shown
from pythia_bento.handlers.inside import Until
from pythia_bento.handlers.inside_answer import rows_of
from pythia_bento.handlers.logits import Rows, logit_rows
from pythia_bento.model.sites import Place, places
from pythia_bento.protocol.patching import MAX_CELLS, PatchRequest
from pythia_bento.protocol.sampling import Ids, Prompt
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns

CELLS_AT_ONCE = 256
BYTES_AT_ONCE = 16 * 2**20  # of their values; one cell's are at most some MB


class Patched(TypedDict):
    """The whole answer."""

    model: str
    system_fingerprint: str
    values: list[list[float]]  # a row for each layer
    clean: float  # what the metric is without any patch
    corrupted: float
    layers: list[int]
    positions: NotRequired[list[int]]  # what the columns are: these, or heads
    heads: NotRequired[list[int]]
    tokens: list[str]  # of the clean prompt


@dataclass(frozen=True, slots=True)
class _Cell:
    """One patch: a position of a place, or a head of it at all positions."""

    place: Place
    position: int | None
    head: int | None

    def tap(self, count: int) -> Tap:
        """What it takes of the clean prompt, which has so many tokens."""
        positions = range(count) if self.position is None else (self.position,)
        return Tap(self.place, positions, None if self.head is None else (self.head,))


async def patch(served: Served, body: PatchRequest, timeout: float | None = None) -> Patched:
    """Raises what refuses the request, and what ended one of its cells."""
    patching = await _Patching.of(served, body, Until(served, timeout))
    clean, corrupted = await patching.without()
    turns, values = Turns(), list[float]()
    for cells in patching.groups():
        values += await patching.of_cells(cells)
        await turns.take()
    columns = patching.columns
    rows = [values[at : at + len(columns)] for at in range(0, len(values), len(columns))]
    answer: Patched = {
        "model": served.info.id,
        "system_fingerprint": served.info.fingerprint,
        "values": rows,
        "clean": clean,
        "corrupted": corrupted,
        "layers": [place.layer for place in patching.places],
        "tokens": served.tokenizer.token_texts([*patching.clean]),
    }
    answer["heads" if body.over == "head" else "positions"] = list(columns)
    return answer


class _Patching:
    """A request whose prompts, places and tokens are known."""

    def __init__(
        self,
        served: Served,
        body: PatchRequest,
        prompts: tuple[Ids, Ids],
        tokens: tuple[int, ...],
        found: Sequence[Place],
        until: Until,
    ) -> None:
        self.clean, self._corrupted = prompts
        self.places = found
        is_by_head = body.over == "head"
        self.columns = range(served.config.num_heads if is_by_head else len(self.clean))
        self._is_by_head = is_by_head
        self._served, self._body, self._until = served, body, until
        self._tokens = tokens

    @classmethod
    async def of(cls, served: Served, body: PatchRequest, until: Until) -> _Patching:
        """Raises InvalidRequest; nothing is asked of the engine before all is right."""
        found = places(body.site, served.config.num_layers, "site")
        _check_site(found[0], body)
        is_scored = body.metric.kind == "logprob"
        clean = await _ids(served, body.clean, "clean", is_scored)
        corrupted = await _ids(served, body.corrupted, "corrupted", is_scored)
        if len(clean) != len(corrupted):
            raise InvalidRequest(
                f"clean has {len(clean)} tokens and corrupted {len(corrupted)}; they must have "
                "the same number",
                param="corrupted",
            )
        tokens = tuple([await _token(served, one) for one in body.metric.tokens])
        patching = cls(served, body, (clean, corrupted), tokens, found, until)
        patching._check_cells()
        return patching

    def _check_cells(self) -> None:
        count = len(self.places) * len(self.columns)
        if count > MAX_CELLS:
            axis = "heads" if self._is_by_head else "positions"
            raise InvalidRequest(
                f"patch asks for {count:,} cells ({len(self.places)} layers, "
                f"{len(self.columns):,} {axis}), but the limit is {MAX_CELLS:,}; name fewer layers",
                param="site",
            )

    async def without(self) -> tuple[float, float]:
        """The metric of both prompts as they are."""
        requests = [self._request(prompt) for prompt in (self.clean, self._corrupted)]
        clean, corrupted = await self._metrics(requests)
        return clean, corrupted

    def groups(self) -> Iterator[list[_Cell]]:
        """All cells, row by row, some at a time."""
        config, count = self._served.config, len(self.clean)
        cells = (
            _Cell(place, None, column) if self._is_by_head else _Cell(place, column, None)
            for place, column in itertools.product(self.places, self.columns)
        )
        group, size = list[_Cell](), 0
        for cell in cells:
            tap = cell.tap(count)
            nbytes = 4 * len(tap.positions) * width(tap, config)
            if group and (len(group) == CELLS_AT_ONCE or size + nbytes > BYTES_AT_ONCE):
                yield group
                group, size = [], 0
            group.append(cell)
            size += nbytes
        yield group

    async def of_cells(self, cells: Sequence[_Cell]) -> list[float]:
        """The metric with each of them patched."""
        requests, turns = [], Turns()
        for change in await self._changes([cell.tap(len(self.clean)) for cell in cells]):
            requests.append(replace(self._request(self._corrupted), interventions=change))
            await turns.take()
        return await self._metrics(requests)

    async def _changes(self, taps: Sequence[Tap]) -> list[Interventions | None]:
        """What sets places to what they are in the clean prompt, each by itself."""
        request = replace(_request(self.clean, self._body), capture=Capture(tuple(taps)))
        config, turns, changes = self._served.config, Turns(), []
        with await self._served.capture([request], self._until.left()) as computed:
            raise_error(computed.outputs[0][0])
            for tap, rows in rows_of(request, computed.memory[0], config):
                item = Intervention(tap.place, "set", tap.positions, tap.heads, None, rows)
                changes.append(interventions([item]))
                await turns.take()
        return changes

    def _request(self, prompt: Ids) -> Request:
        """One whose answer tells the metric."""
        if self._body.metric.kind == "logprob":  # as /score has it
            return replace(
                _request((*prompt, *self._tokens), self._body),
                params=SamplingParams(max_tokens=0, prompt_logprobs=0),
            )
        logits = LogitsTap(self._tokens, (len(prompt) - 1,))
        return replace(_request(prompt, self._body), capture=Capture((), logits))

    async def _metrics(self, requests: Sequence[Request]) -> list[float]:
        served, left = self._served, self._until.left()
        if self._body.metric.kind == "logprob":
            answers = await served.complete(requests, left)
            return [_logprob(raise_error(answer)) for [answer] in answers]
        with await served.capture(requests, left) as computed:
            outputs = [raise_error(output) for [output] in computed.outputs]
            found = zip(requests, outputs, computed.memory, strict=True)
            return [_difference(logit_rows(served, *each)) for each in found]


def _request(prompt: Ids, body: PatchRequest) -> Request:
    params = SamplingParams(max_tokens=0)
    return Request(new_request_id(), prompt, params, priority=body.priority)


def _difference(rows: Rows) -> float:
    """Of the two logits of the one position that is asked for."""
    [[first, second]] = rows
    return first - second


def _logprob(answer: SequenceOutput) -> float:
    assert answer.prompt_logprobs is not None  # where there is no error
    return float(answer.prompt_logprobs.values[-1])


def _check_site(place: Place, body: PatchRequest) -> None:
    site = place.site
    if not site.is_in_layer:
        raise InvalidRequest(f"site is {place.name}, which is in no layer", param="site")
    if not site.is_writable:
        words = f"site is {place.name}, which can be read and not changed"
        raise InvalidRequest(words, param="site")
    if body.over == "head" and site.kind != "heads":
        raise InvalidRequest(f"site is {place.name}, which has no heads to go over", param="site")


async def _ids(served: Served, prompt: Prompt, field: str, is_scored: bool) -> Ids:
    """Of a prompt that fits, with one token more where that is scored."""
    limits = served.limits
    ids = tuple(await served.encode(prompt, field))
    check_ids(field, ids, limits)
    most = min(limits.room(0), limits.max_prompt_tokens or limits.max_positions) - is_scored
    if not 1 <= len(ids) <= most:
        raise ContextLengthExceeded(
            f"{field} has {len(ids)} tokens, but must have 1 to {most}", param=field
        )
    return ids


async def _token(served: Served, token: int | str) -> int:
    """The id of one of the metric's tokens."""
    ids = (token,) if isinstance(token, int) else await served.encode(token, "metric")
    if len(ids) != 1:
        raise InvalidRequest(
            f"metric has {shown(token)}, which is {len(ids)} tokens and must be one; a word in a "
            "text begins with its space",
            param="metric",
        )
    check_ids("metric", ids, served.limits)
    return ids[0]
