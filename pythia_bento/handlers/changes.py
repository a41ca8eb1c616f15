"""From the interventions of a body to those of the engine, for each of its prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pythia_bento.engine.capture import Positions, Tap
from pythia_bento.engine.inside_limits import check_intervention, check_tap, width
from pythia_bento.engine.interventions import Intervention, Op
from pythia_bento.engine.params import Request
from pythia_bento.errors import InvalidRequest, PayloadTooLarge, shown
from pythia_bento.handlers.named_tensors import NamedTensors
from pythia_bento.handlers.positions import of_prompt, positions_of
from pythia_bento.model.sites import Place, places
from pythia_bento.protocol import interventions as bodies
from pythia_bento.protocol.inside import PromptIntervention
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns

MAX_CHANGES = 65_536  # of all prompts of a request
MIN_TENSOR_BYTES = 2**24  # numbers in lists have room, where no tensors are taken

# Fields that an operation has beside site, op, positions, heads and neurons; the first is needed.
_FIELDS: dict[Op, tuple[str, ...]] = {
    "add": ("vector", "scale"),
    "set": ("vector", "from"),
    "scale": ("scale",),
    "zero": (),
    "project_out": ("vector", "scale"),
    "clamp": ("vector", "low", "high"),
}


@dataclass(frozen=True, slots=True)
class Borrowed:
    """Values that another prompt of the request has to be computed for."""

    source: int  # number of that prompt
    tap: Tap  # of it
    place: Place
    positions: tuple[int, ...]  # where they go

    def with_values(self, values: np.ndarray) -> Intervention:
        """The change, once they are known: fp32 [positions, width]."""
        tap = self.tap
        return Intervention(self.place, "set", self.positions, tap.heads, tap.neurons, values)


Change = Intervention | Borrowed


@dataclass(frozen=True, slots=True)
class _Asked:
    """One intervention of a body, of which the model is known and no prompt."""

    field: str
    body: bodies.Intervention
    places: tuple[Place, ...]
    width: int
    values: np.ndarray | None  # fp32 [width], or [rows, width]

    @property
    def source(self) -> int | None:
        """The prompt that it takes values from."""
        source = self.body.source if isinstance(self.body, PromptIntervention) else None
        return source.prompt if source else None

    @property
    def has_rows(self) -> bool:
        """Whether each position has values of its own."""
        return self.source is not None or (self.values is not None and self.values.ndim == 2)

    def holds_for(self, number: int) -> bool:
        """Whether it changes a prompt: by default all, or all behind its source."""
        wanted = self.body.prompts if isinstance(self.body, PromptIntervention) else None
        if wanted is not None:
            return number in wanted
        return self.source is None or number > self.source


class Changes:
    """All that a body changes."""

    def __init__(self, served: Served, asked: Sequence[_Asked]) -> None:
        self._served = served
        self._asked = asked
        self._count = self._nbytes = 0  # of what was made of it so far

    @classmethod
    async def of(
        cls, served: Served, body: Sequence[bodies.Intervention], tensors: NamedTensors
    ) -> Changes:
        """Raises InvalidRequest for what no prompt could make right."""
        turns, asked = Turns(), []
        for index, one in enumerate(body):
            asked.append(await _asked(served, one, f"interventions[{index}]", tensors))
            await turns.take()
        return cls(served, asked)

    def check_prompts(self, count: int) -> None:
        """Raise InvalidRequest where one names a prompt that there is not, or that comes later."""
        for asked in self._asked:
            body = asked.body
            if not isinstance(body, PromptIntervention):
                continue
            for number in body.prompts or ():
                if number >= count:
                    raise _wrong(asked, ".prompts", f"holds {number}, but prompts has {count}")
            if (source := asked.source) is None:
                continue
            first = min(body.prompts or (count,))
            if source >= count:
                raise _wrong(asked, ".from.prompt", f"is {source}, but prompts has {count}")
            if first <= source:
                words = f"is {source}, but must be below the prompts it changes, of which {first}"
                raise _wrong(asked, ".from.prompt", f"{words} is one")

    async def of_prompt(self, number: int, requests: Sequence[Request]) -> list[Change]:
        """Those of one of a body's prompts, in order.

        Raises InvalidRequest, and PayloadTooLarge where all so far hold too many values.
        """
        turns, changes = Turns(), list[Change]()
        for asked in self._asked:
            if asked.holds_for(number):
                for change in self._changes(asked, number, requests):
                    changes.append(change)
                    await turns.take()
        return changes

    def _changes(self, asked: _Asked, number: int, requests: Sequence[Request]) -> list[Change]:
        request, body = requests[number], asked.body
        positions: Positions
        if asked.has_rows:
            positions = of_prompt(body.positions, len(request.prompt), asked.field)
            self._check_rows(asked, positions, number)
        else:
            length = len(request.prompt), request.most_inputs
            positions = positions_of(body.positions, *length, asked.field)
        self._count_in(asked, len(positions))
        if asked.source is not None:
            return list(_borrowed(asked, positions, requests[asked.source], number))
        return [_change(asked, place, positions) for place in asked.places]

    def _check_rows(self, asked: _Asked, positions: Positions, number: int) -> None:
        values = asked.values
        if values is not None and len(values) != len(positions):
            words = f"has {len(values)} rows, but {len(positions)} positions in prompt {number}"
            raise _wrong(asked, ".vector", words)

    def _count_in(self, asked: _Asked, positions: int) -> None:
        """Each is hashed, and sent to the engine."""
        self._count += len(asked.places)
        if self._count > MAX_CHANGES:
            raise InvalidRequest(
                f"interventions makes more than {MAX_CHANGES:,} changes of all layers and prompts",
                param="interventions",
            )
        if asked.values is not None or asked.source is not None:
            rows = positions if asked.has_rows else 1
            self._nbytes += 4 * rows * asked.width * len(asked.places)
        # Half as wide they may have come.
        most = 2 * max(self._served.settings.max_tensor_bytes, MIN_TENSOR_BYTES)
        if self._nbytes > most:
            raise PayloadTooLarge(
                f"interventions holds more than {most:,} bytes of values, in float32 and of all "
                "layers and prompts; send fewer at a time",
                param="interventions",
            )


async def _asked(
    served: Served, body: bodies.Intervention, field: str, tensors: NamedTensors
) -> _Asked:
    config = served.config
    _check_fields(body, field)
    found = places(body.site, config.num_layers, f"{field}.site")
    if not found[0].site.is_writable:
        words = f"is {found[0].name}, which can be read and not changed"
        raise InvalidRequest(f"{field}.site {words}", param=f"{field}.site")
    tap = Tap(found[0], (), body.heads, body.neurons)
    check_tap(tap, config, served.limits.num_tokens, field)
    values = None
    if body.vector is not None:
        array = await tensors.array(body.vector, f"{field}.vector")
        values = _shaped(array, tap, width(tap, config), tap.row(config, 0), body, field)
    asked = _Asked(field, body, found, width(tap, config), values)
    if asked.source is None:
        rows = len(values) if values is not None and asked.has_rows else 1
        check_intervention(_change(asked, found[0], range(rows)), config, field)
    return asked


def _check_fields(body: bodies.Intervention, field: str) -> None:
    """Raise InvalidRequest unless the operation has what it needs, and nothing besides."""
    given = {name for name in ("vector", "low", "high") if getattr(body, name) is not None}
    given |= {"scale"} & body.model_fields_set
    if isinstance(body, PromptIntervention) and body.source is not None:
        given.add("from")
    takes = _FIELDS[body.op]
    for name in sorted(given.difference(takes)):
        raise InvalidRequest(
            f"{field}.{name} is nothing that {body.op} takes", param=f"{field}.{name}"
        )
    if takes and takes[0] not in given and takes != ("scale",) and "from" not in given:
        raise InvalidRequest(
            f"{field}.{takes[0]} is required by {body.op}", param=f"{field}.{takes[0]}"
        )
    if body.op == "clamp" and given.isdisjoint(("low", "high")):
        raise InvalidRequest(f"{field}.low or high is required by clamp", param=f"{field}.low")
    if {"vector", "from"} <= given:
        raise InvalidRequest(f"{field}.from goes without vector", param=f"{field}.from")


def _shaped(
    array: np.ndarray,
    tap: Tap,
    wide: int,
    row: tuple[int, ...],
    body: bodies.Intervention,
    field: str,
) -> np.ndarray:
    """Values as [width] or [rows, width]; heads may have a dimension of their own."""
    if array.shape in ((wide,), row):
        return array.reshape(wide)
    if array.shape[1:] in ((wide,), row):
        return array.reshape(len(array), wide)
    name = f" {shown(body.vector)}" if isinstance(body.vector, str) else ""
    is_all = tap.heads is tap.neurons  # None
    what = f"{tap.place.name} is" if is_all else f"what is selected of {tap.place.name} is"
    raise InvalidRequest(
        f"{field}.vector{name} has shape {shown(list(array.shape))}, but {what} {wide} wide",
        param=f"{field}.vector",
    )


def _change(asked: _Asked, place: Place, positions: Positions) -> Intervention:
    body = asked.body
    low, high = 0.0, 0.0
    if body.op == "clamp":
        low = -math.inf if body.low is None else body.low
        high = math.inf if body.high is None else body.high
    what = body.heads, body.neurons, asked.values, body.scale
    return Intervention(place, body.op, positions, *what, low, high)


def _borrowed(
    asked: _Asked, positions: Sequence[int], source: Request, number: int
) -> list[Borrowed]:
    """Where the values are in the source: what ``positions`` means there."""
    body, number_of_source = asked.body, asked.source
    assert number_of_source is not None
    there = of_prompt(body.positions, len(source.prompt), asked.field)
    if len(there) != len(positions):
        raise _wrong(
            asked,
            ".positions",
            f"are {len(positions)} in prompt {number} and {len(there)} in prompt "
            f"{number_of_source}; they must be the same number",
        )
    return [
        Borrowed(
            number_of_source,
            Tap(place, there, body.heads, body.neurons),
            place,
            tuple(positions),
        )
        for place in asked.places
    ]


def _wrong(asked: _Asked, part: str, words: str) -> InvalidRequest:
    return InvalidRequest(f"{asked.field}{part} {words}", param=f"{asked.field}{part}")
