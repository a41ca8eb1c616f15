"""From what a body wants to see to the engine's captures, for each of its prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from pythia_bento.engine.capture import (
    Capture,
    Dtype,
    Lens,
    LogitsTap,
    Part,
    Placed,
    Positions,
    Project,
    Reduction,
    Tap,
    layout,
    num_rows,
)
from pythia_bento.engine.inside_limits import check_logits, check_tap
from pythia_bento.engine.params import Request
from pythia_bento.errors import InvalidRequest, PayloadTooLarge
from pythia_bento.handlers.named_tensors import NamedTensors
from pythia_bento.handlers.positions import positions_of
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sites import Place, places
from pythia_bento.protocol.inside import MAX_TENSORS, CaptureItem, ProjectOf
from pythia_bento.protocol.interventions import LogitsOf
from pythia_bento.runtime.captured import sizes
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns


@dataclass(frozen=True, slots=True)
class _Asked:
    """One capture of a body."""

    field: str
    body: CaptureItem
    places: tuple[Place, ...]
    reduction: Reduction | None
    dtype: Dtype

    def tap(self, place: Place, positions: Positions = ()) -> Tap:
        """At one of its places."""
        what = self.body.heads, self.body.neurons, self.reduction, self.dtype
        return Tap(place, positions, *what)

    def suffixes(self, config: ModelConfig) -> list[str]:
        """Of the names of the tensors that it makes at each place."""
        parts = self.tap(self.places[0]).parts(config, 1)
        return [part.suffix for part in parts if is_told(part)]


class Captures:
    """All that a body wants to see of each of its prompts."""

    def __init__(self, served: Served, asked: Sequence[_Asked], logits: LogitsOf | None) -> None:
        self._served = served
        self._asked = asked
        self._logits = logits

    @classmethod
    async def of(
        cls,
        served: Served,
        body: Sequence[CaptureItem],
        logits: LogitsOf | None,
        dtype: Dtype,
        tensors: NamedTensors,
    ) -> Captures:
        """Raises InvalidRequest for what no prompt could make right."""
        asked, turns = [], Turns()
        for index, one in enumerate(body):
            field = f"capture[{index}]"
            found = places(one.site, served.config.num_layers, f"{field}.site")
            reduction = await _reduction(one, field, tensors)
            asked.append(_Asked(field, one, found, reduction, dtype))
            first = asked[-1].tap(found[0])
            check_tap(first, served.config, served.limits.num_tokens, field)
            await turns.take()
        _check_names(served.config, asked)
        if logits is not None:
            tap = LogitsTap(logits.tokens, ())
            check_logits(tap, served.limits.num_tokens, "logits")
        return cls(served, asked, logits)

    def check_prompts(self, count: int) -> None:
        """Raise InvalidRequest where so many prompts make too many tensors."""
        config = self._served.config
        of_one = sum(len(asked.places) * len(asked.suffixes(config)) for asked in self._asked)
        if of_one * count > MAX_TENSORS:
            raise InvalidRequest(
                f"capture asks for {of_one * count:,} tensors of all layers and prompts, but the "
                f"limit is {MAX_TENSORS:,}",
                param="capture",
            )

    async def onto(self, request: Request) -> Request:
        """A prompt's request, with what is to be seen of it; raises InvalidRequest."""
        turns, taps = Turns(), []
        length = len(request.prompt), request.most_inputs
        for asked in self._asked:
            positions = positions_of(asked.body.positions, *length, asked.field)
            taps += [asked.tap(place, positions) for place in asked.places]
            await turns.take()
        logits = None
        if self._logits is not None:
            there = positions_of(self._logits.positions, *length, "logits")
            logits = LogitsTap(self._logits.tokens, there)
        return replace(request, capture=Capture(tuple(taps), logits))

    def check_size(self, requests: Sequence[Request]) -> None:
        """Raise PayloadTooLarge above what one request may see."""
        settings, total = self._served.settings, sum(sizes(requests, self._served.config))
        if total > settings.max_capture_bytes:
            raise PayloadTooLarge(
                f"capture asks for {total:,} bytes ({self._largest(requests)}), but the limit is "
                f"{settings.max_capture_bytes:,}; fewer positions or layers, a smaller dtype or a "
                "reduction take less",
                param="capture",
            )

    def numbers(self, requests: Sequence[Request]) -> int:
        """How many are captured at most."""
        count = 0
        for request in requests:
            assert request.capture is not None
            groups, _ = layout(request.capture, self._served.config, request.most_inputs)
            count += sum(_numbers(placed) for group in groups for placed in group)
        return count

    def _largest(self, requests: Sequence[Request]) -> str:
        """What takes most of it, in words."""
        config = self._served.config
        largest, words = 0, "logits"
        for asked in self._asked:
            rows = each = 0
            for request in requests:
                inputs = request.most_inputs
                length = len(request.prompt), inputs
                rows += num_rows(positions_of(asked.body.positions, *length, asked.field), inputs)
                parts = asked.tap(asked.places[0]).parts(config, inputs)
                each = max(each, sum(part.nbytes(1) for part in parts))
            layers = len(asked.places)
            if rows * layers * each > largest:
                largest = rows * layers * each
                words = f"{rows:,} positions, {layers} layers, {each:,} bytes each"
                words = words if len(self._asked) == 1 else f"{asked.field} alone: {words}"
        return words


async def _reduction(body: CaptureItem, field: str, tensors: NamedTensors) -> Reduction | None:
    reduce = body.reduce
    if reduce is None or reduce in ("mean", "norm"):
        return reduce
    if isinstance(reduce, ProjectOf):
        array = await tensors.array(reduce.project, f"{field}.reduce.project")
        return Project(array[None] if array.ndim == 1 else array)
    return Lens(reduce.top, reduce.tokens)


def is_told(part: Part) -> bool:
    """Whether an answer has it: a lens may have no tokens, or no best ones."""
    return math.prod(part.row) > 0


def _check_names(config: ModelConfig, asked: Sequence[_Asked]) -> None:
    """Raise InvalidRequest where two would make a tensor of the same name."""
    makers: dict[str, str] = {}
    for one in asked:
        for place, suffix in product(one.places, one.suffixes(config)):
            name = place.name + suffix
            if (other := makers.setdefault(name, one.field)) != one.field:
                raise InvalidRequest(
                    f"{one.field}.site makes the tensor '0:{name}', which {other} makes too; ask "
                    "for it once, or in two requests",
                    param=f"{one.field}.site",
                )


def _numbers(placed: Placed) -> int:
    rows = placed.rows if placed.part.has_rows else 1
    return rows * math.prod(placed.part.row)
