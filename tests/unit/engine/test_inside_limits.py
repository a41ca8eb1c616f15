"""What may be asked of the inside of a model: one sentence names what is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pythia_bento.engine.capture import Capture, Lens, LogitsTap, Project, Tap
from pythia_bento.engine.inside_limits import check_values
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.validate import Limits, validate
from pythia_bento.errors import InvalidRequest
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sites import (
    EMBED,
    NORMALIZED,
    PATTERN,
    POST,
    RESID_PRE,
    SITES,
    K,
    Place,
    Q,
    Z,
)

CONFIG = ModelConfig(3, 8, 2, 32, 100, 64, 1)
LIMITS = Limits(num_tokens=90, max_positions=64, cache_tokens=64, config=CONFIG)
REQUEST = Request("r", (1, 2, 3), SamplingParams(max_tokens=0))
PRE, ALL = Place(RESID_PRE, 1), range(2**31)
NO_REDUCTION: Any = "sum"


def lens(top: Any, *tokens: Any) -> Tap:
    return Tap(PRE, ALL, reduction=Lens(top, tokens))


def project(*shape: int, place: Place = PRE, **options: Any) -> Tap:
    return Tap(place, ALL, reduction=Project(np.ones(shape, "f4")), **options)


BAD_TAPS: list[tuple[Tap, str]] = [
    (
        Tap(Place(RESID_PRE, 3), ALL),
        "capture[1].site is blocks.3.hook_resid_pre, but the model's layers are 0 to 2",
    ),
    (Tap(Place(EMBED, 1), ALL), "capture[1].site is hook_embed, but"),
    (Tap(PRE, (3, 2)), "capture[1].positions must be rising numbers from 0 on"),
    (Tap(PRE, (2, 2)), "capture[1].positions must be rising"),
    (Tap(PRE, (-1, 2)), "capture[1].positions must be rising"),
    (Tap(PRE, (True,)), "capture[1].positions must be rising"),
    (Tap(PRE, range(-1, 5)), "capture[1].positions must be rising"),
    (Tap(PRE, range(5, 1, -1)), "capture[1].positions must be rising"),
    (
        Tap(PRE, ALL, heads=(0,)),
        "capture[1].heads is given, but blocks.1.hook_resid_pre has no heads",
    ),
    (Tap(Place(Q), ALL, heads=()), "capture[1].heads must have 1 to 2 entries, not 0"),
    (
        Tap(Place(Q), ALL, heads=(2,)),
        "capture[1].heads holds 2, but must hold integers from 0 to 1",
    ),
    (Tap(Place(Q), ALL, heads=(1, 1)), "capture[1].heads names one twice"),
    (
        Tap(Place(Q), ALL, neurons=(1,)),
        "capture[1].neurons is given, but blocks.0.attn.hook_q has no",
    ),
    (
        Tap(Place(POST), ALL, neurons=(32,)),
        "capture[1].neurons holds 32, but must hold integers from 0 to 31",
    ),
    (Tap(PRE, ALL, dtype="int32"), "capture[1].dtype is 'int32', but must be float32,"),
    (Tap(PRE, ALL, reduction=NO_REDUCTION), "capture[1].reduce is 'sum', which is no reduction"),
    (
        Tap(Place(PATTERN), ALL, reduction="mean"),
        "capture[1].reduce is given, but blocks.0.attn.hook_pattern is not reduced",
    ),
    (
        Tap(Place(NORMALIZED), ALL, reduction=Lens(1)),
        "capture[1].reduce is a lens, but ln_final.hook_normalized is no place",
    ),
    (
        Tap(Place(Z), ALL, reduction=Lens(1)),
        "capture[1].reduce is a lens, but blocks.0.attn.hook_z is no place",
    ),
    (lens(91), "capture[1].reduce.lens.top must be an integer from 0 to 90, not 91"),
    (
        lens(1, 90),
        "capture[1].reduce.lens.tokens holds 90, but token ids are integers from 0 to 89",
    ),
    (
        lens(1, *range(89), *[1] * 200),
        "capture[1].reduce.lens.tokens has 289 ids, but the limit is 256",
    ),
    (
        project(2, 7),
        "capture[1].reduce.project has shape [2, 7], but rows of blocks.1.hook_resid_pre are",
    ),
    (project(8), "capture[1].reduce.project has shape [8], but"),
    (project(1025, 8), "capture[1].reduce.project must have 1 to 1024 directions, not 1025"),
    (
        project(1, 8, place=Place(K)),
        "capture[1].reduce.project has shape [1, 8], but rows of blocks.0.attn.hook_k are 4 wide",
    ),
]


def message(request: Request) -> str:
    with pytest.raises(InvalidRequest) as caught:
        validate(request, LIMITS)
    assert caught.value.param and caught.value.message.startswith(caught.value.param)
    return caught.value.message


@pytest.mark.parametrize(("tap", "words"), BAD_TAPS, ids=[words for _, words in BAD_TAPS])
def test_what_can_never_be_seen(tap: Tap, words: str) -> None:
    found = message(replace(REQUEST, capture=Capture((Tap(PRE, ALL), tap))))
    assert found.startswith(words), found


def test_other_parts_of_a_capture() -> None:
    logits = LogitsTap((90,), ALL)
    assert "logits.tokens holds 90" in message(replace(REQUEST, capture=Capture((), logits)))
    nothing = Capture((), LogitsTap((), ALL))
    assert message(replace(REQUEST, capture=nothing)) == "logits.tokens is empty"
    many = Capture((Tap(PRE, ALL),) * 4097)
    assert message(replace(REQUEST, capture=many)).startswith("capture has 4097 tensors, but")
    two = replace(REQUEST, capture=Capture(()), n=2)
    assert message(two) == "n must be 1 with a capture, not 2"


def change(op: Any = "add", *shape: int, place: Place = PRE, **fields: Any) -> Intervention:
    values = np.ones(shape, "f4") if shape else None
    return Intervention(place, op, **({"positions": (0, 2), "values": values} | fields))


BAD_CHANGES: list[tuple[Intervention, str]] = [
    (
        change("zero", place=Place(PATTERN, 2)),
        "interventions[1].site is blocks.2.attn.hook_pattern, which can be read and not",
    ),
    (
        change("zero", place=Place(RESID_PRE, 3)),
        "interventions[1].site is blocks.3.hook_resid_pre, but",
    ),
    (change("mul", 8), "interventions[1].op is 'mul', but must be one of"),
    (change("zero", positions=(2, 1)), "interventions[1].positions must be rising"),
    (change("zero", heads=(0,)), "interventions[1].heads is given, but"),
    (
        change("add", 8, scale=math.inf),
        "interventions[1].scale must be between -1e+06 and 1e+06, not inf",
    ),
    (change("scale", scale=2e6), "interventions[1].scale must be between"),
    (change("clamp", 8, low=math.nan), "interventions[1].low must be between"),
    (
        change("clamp", 8, low=1.0, high=0.5),
        "interventions[1].low is 1, but must be at most high, 0.5",
    ),
    (change("clamp", 8, low=math.inf, high=math.inf), "interventions[1].low must be between"),
    (change("add"), "interventions[1].vector is missing, but add needs one"),
    (change("zero", 8), "interventions[1].vector is given, but zero needs none"),
    (
        change("add", 7),
        "interventions[1].vector has shape [7], but blocks.1.hook_resid_pre is 8 wide",
    ),
    (change("add", 1, 2, 8), "interventions[1].vector has shape [1, 2, 8], but"),
    (
        change("add", 8, place=Place(Q), heads=(1,)),
        "interventions[1].vector has shape [8], but what is selected is 4 wide",
    ),
    (change("add", 3, 8), "interventions[1].vector has 3 rows, but 2 positions"),
    (
        change("project_out", values=np.zeros(8, "f4")),
        "interventions[1].vector is 0, but project_out needs a direction",
    ),
    (change("add", values=np.ones(8)), "interventions[1].vector has shape [8], but"),
]


@pytest.mark.parametrize(("item", "words"), BAD_CHANGES, ids=[words for _, words in BAD_CHANGES])
def test_what_can_never_be_changed(item: Intervention, words: str) -> None:
    found = message(replace(REQUEST, interventions=interventions([change("zero"), item])))
    assert found.startswith(words), found


def test_what_is_right_passes() -> None:
    taps = [Tap(Place(site, 2 if site.is_in_layer else 0), ALL) for site in SITES]
    taps += [lens(90, 0, 89), project(1024, 8), project(3, 2, place=Place(POST), neurons=(31, 0))]
    taps += [Tap(Place(Q), (0, 63), heads=(1, 0), dtype="float16"), Tap(PRE, (), reduction="norm")]
    capture = Capture(tuple(taps), LogitsTap((0, 89), range(3)))
    changes = [
        change("add", 8, scale=-1e6),
        change("set", 2, 4, place=Place(K), heads=(1,)),
        change("clamp", 8, low=-math.inf, high=0.5),
        change("project_out", 2, 32, place=Place(POST)),
        change("add", 8, positions=ALL, place=Place(EMBED)),
    ]
    validate(replace(REQUEST, capture=capture, interventions=interventions(changes)), LIMITS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "v holds a value that is not finite"),
        (-math.inf, "v holds a value that is not finite"),
        (math.inf, "v holds a value that is not finite"),
        (-1.1e6, "v holds a value that is beyond 1e6"),
        (1.1e6, "v holds a value that is beyond 1e6"),
    ],
)
def test_values_are_moderate_numbers(value: float, words: str) -> None:
    values = np.zeros((3, 4), "f4")
    check_values(values, "v")
    check_values(np.zeros(0, "f4"), "v")
    values[1, 2] = value
    with pytest.raises(InvalidRequest) as caught:
        check_values(values, "v")
    assert caught.value.message == words
