"""Which training steps are meant by ``all``, ``log``, ``0,1,512`` or ``1000:143000:2000``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pythia_bento.catalog import EVEN_STEPS, LAST_STEP, MODELS, STEPS, ModelId, nearest_steps
from pythia_bento.errors import InvalidRequest, shown

ALL, LOG = "all", "log"
MAX_STEPS = 2048  # of one expression
MAX_STEP = 10**9 - 1  # what a branch's name can hold
LOG_STEPS: tuple[int, ...] = (
    *(step for step in STEPS if step < EVEN_STEPS[0]),
    *(1000 * 2**power for power in range(8)),
    LAST_STEP,
)
"""0, 1, 2, 4, ..., 512, 1000, 2000, 4000, ..., 128000, 143000."""
_LIST = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*")
_RANGE = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})")


def steps_of(text: str, model: ModelId, there: Callable[[], Iterable[int]]) -> list[int]:
    """The steps that an expression means, in the order of training, each once.

    ``all`` and ``log`` mean all or some of the model's own; which these are is only asked, by
    ``there``, where the suite does not say. Of the suite no others can be named. Raises
    InvalidRequest.
    """
    if text in (ALL, LOG):
        own = MODELS[model.name].steps if model.name in MODELS else there()
        found = set(own) if text == ALL else set(own) & set(LOG_STEPS)
        _require_few(len(found))
    else:
        found = _numbered(text)
        _require_known(found, model)
    if not found:
        raise InvalidRequest(f"steps {text!r}: {model.name} has none of them", param="steps")
    return sorted(found)


def _numbered(text: str) -> set[int]:
    if parts := _RANGE.fullmatch(text):
        first, last, by = map(int, parts.groups())
        if by < 1 or first > last:
            raise InvalidRequest(
                f"steps {text!r}: FROM must be at most TO, and BY at least 1", param="steps"
            )
        steps: Iterable[int] = range(first, last + 1, by)
        count = len(range(first, last + 1, by))
    elif _LIST.fullmatch(text):
        count = text.count(",") + 1
        steps = map(int, text.split(","))
    else:
        raise InvalidRequest(
            f"steps must be all, log, a list as 0,1,512 or FROM:TO:BY as 1000:143000:2000, of "
            f"numbers from 0 to {MAX_STEP}, not {shown(text)}",
            param="steps",
        )
    _require_few(count)
    return set(steps)


def _require_few(count: int) -> None:
    if count > MAX_STEPS:
        raise InvalidRequest(f"steps names {count} steps; the limit is {MAX_STEPS}", param="steps")


def _require_known(steps: set[int], model: ModelId) -> None:
    """Raise for a step that the suite says a model has not."""
    if model.name not in MODELS:
        return
    known = MODELS[model.name].steps
    if unknown := sorted(steps.difference(known)):
        nearest = ", ".join(nearest_steps(unknown[0], known))
        raise InvalidRequest(
            f"steps: {model.name} has no step {unknown[0]}; the nearest are {nearest}",
            param="steps",
        )
