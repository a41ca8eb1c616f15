"""What may be asked of the inside of a model: the same sentences for the engine and for edges.

Pure, and done in microseconds: what large tensors hold is looked at by ``check_values`` alone, once
when they arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np

from pythia_bento.engine.capture import (
    Capture,
    Lens,
    LogitsTap,
    Positions,
    Project,
    Tap,
)
from pythia_bento.engine.interventions import Intervention, Interventions, Op
from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sites import NORMALIZED, Place

MOST_TAPS = 4096
MOST_CHANGES = 65_536  # of one sequence: 256 interventions over all layers
MOST_NEURONS = 4096
MOST_DIRECTIONS = 1024
MOST_TOP = 100
MOST_TOKENS = 256
MOST_LOGITS = 1024
MOST_VALUE = 1e6  # in magnitude, of what is put into a pass; see docs/gpu.md

_NEED_VALUES = ("add", "set", "project_out", "clamp")
_ALONG = ("project_out", "clamp")


def check_capture(capture: Capture, config: ModelConfig, num_tokens: int) -> None:
    """Raise InvalidRequest for the first tap that can never be filled."""
    if len(capture.taps) > MOST_TAPS:
        raise _wrong("capture", f"has {len(capture.taps)} tensors, but the limit is {MOST_TAPS}")
    seen: set[int] = set()  # positions, which many may share
    for index, tap in enumerate(capture.taps):
        check_tap(tap, config, num_tokens, f"capture[{index}]", seen)
    if capture.logits is not None:
        check_logits(capture.logits, num_tokens, "logits")


def check_interventions(changes: Interventions, config: ModelConfig) -> None:
    """The same for what is changed."""
    count = len(changes.items)
    if count > MOST_CHANGES:
        raise _wrong("interventions", f"has {count} entries, but the limit is {MOST_CHANGES}")
    seen: set[int] = set()
    for index, item in enumerate(changes.items):
        check_intervention(item, config, f"interventions[{index}]", seen)


def check_tap(
    tap: Tap, config: ModelConfig, num_tokens: int, field: str, seen: set[int] | None = None
) -> None:
    """``field`` begins the sentence of what is raised, an InvalidRequest; so below.

    ``num_tokens`` are the model's tokens. ``seen`` has the ids of positions that are right.
    """
    _check_place(tap.place, config, field)
    _check_positions(tap.positions, field, seen)
    _check_selection(tap.place, tap.heads, tap.neurons, config, field)
    if tap.dtype not in ("float32", "bfloat16", "float16"):
        words = f"is {shown(tap.dtype)}, but must be float32, bfloat16 or float16"
        raise _wrong(field, words, ".dtype")
    if tap.reduction is not None:
        _check_reduction(tap, config, num_tokens, field)


def check_logits(tap: LogitsTap, num_tokens: int, field: str) -> None:
    """See ``check_tap``."""
    _check_positions(tap.positions, field)
    if not tap.tokens:
        raise _wrong(field, "is empty", ".tokens")
    _check_tokens(tap.tokens, num_tokens, MOST_LOGITS, field)


def check_intervention(
    item: Intervention, config: ModelConfig, field: str, seen: set[int] | None = None
) -> None:
    """See ``check_tap``; ``check_values`` looks at what its values are."""
    _check_place(item.place, config, field)
    if not item.place.site.is_writable:
        raise _wrong(field, f"is {item.place.name}, which can be read and not changed", ".site")
    if item.op not in get_args(Op):
        raise _wrong(field, f"is {shown(item.op)}, but must be one of {get_args(Op)}", ".op")
    _check_positions(item.positions, field, seen)
    _check_selection(item.place, item.heads, item.neurons, config, field)
    if not math.isfinite(item.scale) or abs(item.scale) > MOST_VALUE:
        words = f"must be between {-MOST_VALUE:g} and {MOST_VALUE:g}, not {shown(item.scale)}"
        raise _wrong(field, words, ".scale")
    _check_bounds(item, field)
    _check_shape(item, config, field)


def check_values(values: np.ndarray, field: str) -> None:
    """Raise InvalidRequest unless all are finite and at most ``MOST_VALUE``; reads all of them."""
    if values.size == 0:
        return
    largest = float(max(values.max(), -values.min()))
    if not math.isfinite(largest):
        raise _wrong(field, "holds a value that is not finite")
    if largest > MOST_VALUE:
        raise _wrong(field, "holds a value that is beyond 1e6")


def width(item: Tap | Intervention, config: ModelConfig) -> int:
    """Numbers that are selected of a row."""
    shape = item.place.shape(config)
    if item.heads is not None:
        shape = (len(item.heads), *shape[1:])
    return math.prod(shape) if item.neurons is None else len(item.neurons)


def _check_bounds(item: Intervention, field: str) -> None:
    """Of ``clamp``: each a moderate number, or infinite where there is none."""
    for name, value, absent in (("low", item.low, -math.inf), ("high", item.high, math.inf)):
        if value != absent and not abs(value) <= MOST_VALUE:  # nor where it is no number
            words = f"must be between {-MOST_VALUE:g} and {MOST_VALUE:g}, not {shown(value)}"
            raise _wrong(field, words, f".{name}")
    if item.low > item.high:
        raise _wrong(field, f"is {item.low:g}, but must be at most high, {item.high:g}", ".low")


def _check_place(place: Place, config: ModelConfig, field: str) -> None:
    if not 0 <= place.layer < (config.num_layers if place.site.is_in_layer else 1):
        words = f"is {place.name}, but the model's layers are 0 to {config.num_layers - 1}"
        raise _wrong(field, words, ".site")


def _check_positions(positions: Positions, field: str, seen: set[int] | None = None) -> None:
    if seen is not None and id(positions) in seen:
        return
    if isinstance(positions, range):
        is_right = positions.start >= 0 and positions.step >= 1
    else:
        # All at once: there may be thousands. A bool is no position.
        is_right = set(map(type, positions)) <= {int} and min(positions, default=0) >= 0
        is_right = is_right and [*positions] == sorted(set(positions))
    if not is_right:
        raise _wrong(field, "must be rising numbers from 0 on", ".positions")
    if seen is not None:
        seen.add(id(positions))


def _check_selection(
    place: Place,
    heads: tuple[int, ...] | None,
    neurons: tuple[int, ...] | None,
    config: ModelConfig,
    field: str,
) -> None:
    kind = place.site.kind
    if heads is not None:
        if kind not in ("heads", "keys"):
            raise _wrong(field, f"is given, but {place.name} has no heads", ".heads")
        _check_numbers(heads, config.num_heads, config.num_heads, field, ".heads")
    if neurons is not None:
        if kind != "inner":
            raise _wrong(field, f"is given, but {place.name} has no neurons", ".neurons")
        most = config.intermediate_size
        _check_numbers(neurons, most, MOST_NEURONS, field, ".neurons")


def _check_numbers(numbers: Sequence[int], end: int, most: int, field: str, part: str) -> None:
    """Each once, below ``end``, at least one and at most ``most``."""
    if not numbers or len(numbers) > most:
        raise _wrong(field, f"must have 1 to {most} entries, not {len(numbers)}", part)
    for number in numbers:
        if type(number) is not int or not 0 <= number < end:
            words = f"holds {shown(number)}, but must hold integers from 0 to {end - 1}"
            raise _wrong(field, words, part)
    if len(set(numbers)) < len(numbers):
        raise _wrong(field, "names one twice", part)


def _check_tokens(tokens: Sequence[int], num_tokens: int, most: int, field: str) -> None:
    if len(tokens) > most:
        raise _wrong(field, f"has {len(tokens)} ids, but the limit is {most}", ".tokens")
    for token in tokens:
        if type(token) is not int or not 0 <= token < num_tokens:
            words = f"holds {shown(token)}, but token ids are integers from 0 to {num_tokens - 1}"
            raise _wrong(field, words, ".tokens")


def _check_reduction(tap: Tap, config: ModelConfig, num_tokens: int, field: str) -> None:
    reduction, site = tap.reduction, tap.place.site
    if site.kind == "keys":
        raise _wrong(field, f"is given, but {tap.place.name} is not reduced", ".reduce")
    if isinstance(reduction, Project):
        _check_directions(reduction.directions, tap.row(config, 0)[-1], tap.place, field)
    elif isinstance(reduction, Lens):
        if site.kind != "hidden" or site is NORMALIZED:
            words = f"is a lens, but {tap.place.name} is no place in the residual stream"
            raise _wrong(field, words, ".reduce")
        if type(reduction.top) is not int or not 0 <= reduction.top <= min(MOST_TOP, num_tokens):
            most = min(MOST_TOP, num_tokens)
            words = f"must be an integer from 0 to {most}, not {shown(reduction.top)}"
            raise _wrong(field, words, ".reduce.lens.top")
        _check_tokens(reduction.tokens, num_tokens, MOST_TOKENS, f"{field}.reduce.lens")
    elif reduction not in ("mean", "norm"):
        raise _wrong(field, f"is {shown(reduction)}, which is no reduction", ".reduce")


def _check_directions(values: np.ndarray, wanted: int, place: Place, field: str) -> None:
    if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != wanted:
        words = f"has shape {list(values.shape)}, but rows of {place.name} are {wanted} wide"
        raise _wrong(field, words, ".reduce.project")
    if not 1 <= len(values) <= MOST_DIRECTIONS:
        words = f"must have 1 to {MOST_DIRECTIONS} directions, not {len(values)}"
        raise _wrong(field, words, ".reduce.project")


def _check_shape(item: Intervention, config: ModelConfig, field: str) -> None:
    if item.op not in _NEED_VALUES:
        if item.values is not None:
            raise _wrong(field, f"is given, but {item.op} needs none", ".vector")
        return
    if item.values is None:
        raise _wrong(field, f"is missing, but {item.op} needs one", ".vector")
    wanted, shape = width(item, config), item.values.shape
    is_right = item.values.dtype == np.float32 and shape[-1:] == (wanted,)
    if not is_right or len(shape) > 2:
        what = f"{item.place.name} is" if item.heads is item.neurons else "what is selected is"
        raise _wrong(field, f"has shape {list(shape)}, but {what} {wanted} wide", ".vector")
    if len(shape) == 2 and shape[0] != len(item.positions):
        words = f"has {shape[0]} rows, but {len(item.positions)} positions"
        raise _wrong(field, words, ".vector")
    if item.op in _ALONG and not np.atleast_2d(item.values).any(axis=1).all():
        raise _wrong(field, f"is 0, but {item.op} needs a direction", ".vector")


def _wrong(field: str, words: str, part: str = "") -> InvalidRequest:
    return InvalidRequest(f"{field}{part} {words}", param=f"{field}{part}")
