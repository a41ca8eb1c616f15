"""Changes inside a pass: exact, nobody else's, and never read from anybody's cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pythia_bento.engine.capture import Capture, Tap
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tapped import Tapped
from pythia_bento.errors import NonFiniteLogits
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.sites import (
    EMBED,
    POST,
    RESID_POST,
    RESID_PRE,
    SITES,
    K,
    Place,
    Site,
    Z,
)
from tests.integration.captures import (
    ALL,
    Capturing,
    bits,
    capturing,
    changing,
    everything,
    same,
)
from tests.integration.engine_parts import (
    engine_for,
    mixed_requests,
    random_model,
    without_cache_hits,
)

PROMPT = tuple(2 + index * 7 % 260 for index in range(50))
OTHER = tuple(3 + index * 11 % 250 for index in range(50))
PARAMS = SamplingParams(max_tokens=12, temperature=0.8, seed=4, logprobs=3, ignore_eos=True)
WRITABLE = [site for site in SITES if site.is_writable]


@pytest.fixture(scope="module")
def model() -> GPTNeoX:
    return random_model("cpu")


def engine(model: GPTNeoX, **sizes: int) -> Capturing:
    return Capturing(engine_for(model, **sizes))


def alone(model: GPTNeoX, request: Request) -> list[SequenceOutput]:
    [(answers, _)] = engine(model).generate([request])
    return without_cache_hits(answers)


def seen(model: GPTNeoX, request: Request, place: Place) -> np.ndarray:
    """The rows of a place."""
    shown = capturing(request, Capture((Tap(place, ALL),)))
    [(_, rows)] = engine(model).generate([shown])
    [values] = rows.values()
    return values


def place_of(site: Site, layer: int = 1) -> Place:
    return Place(site, layer if site.is_in_layer else 0)


@pytest.mark.parametrize("site", WRITABLE, ids=lambda site: site.name)
def test_its_own_value_in_its_place_changes_no_bit(model, site):
    request, place = Request("r", PROMPT, PARAMS), place_of(site)
    rows = seen(model, request, place).reshape(len(PROMPT) + 11, -1)
    own = Intervention(place, "set", tuple(range(len(rows))), values=rows)
    assert alone(model, changing(request, own)) == alone(model, request)


def test_what_changes_nothing_is_no_change():
    nothing = [
        Intervention(Place(EMBED), "add", ALL, values=np.ones(128, np.float32), scale=0.0),
        Intervention(Place(EMBED), "scale", ALL, scale=1.0),
        Intervention(Place(EMBED), "zero", ()),
    ]
    assert interventions(nothing) is None


@pytest.mark.parametrize("place", [Place(EMBED), Place(RESID_PRE, 1), Place(RESID_POST, 1)])
def test_a_whole_layer_of_another_prompt_continues_as_that_does(model, place):
    clean, corrupted = Request("a", PROMPT, PARAMS), Request("b", OTHER, PARAMS)
    rows = seen(model, clean, place)
    patch = Intervention(place, "set", tuple(range(len(rows))), values=rows)
    [expected], [found] = alone(model, clean), alone(model, changing(corrupted, patch))
    assert (found.token_ids, found.logprobs) == (expected.token_ids, expected.logprobs)
    assert alone(model, corrupted)[0].token_ids != expected.token_ids


def steered(request: Request, site: Site = K, first: int = 20, **options: object) -> Request:
    rng = np.random.default_rng(first)
    values = (3 * rng.standard_normal(128)).astype(np.float32)
    usual = {"op": "add", "positions": range(first, 2**31), "values": values}
    item = Intervention(place_of(site, 0), **(usual | options))  # type: ignore[arg-type]
    return changing(request, item)


def test_nobody_else_reads_what_a_change_has_cached(model):
    plain = Request("r", PROMPT, PARAMS)
    requests = [plain, steered(plain), steered(plain, scale=2.0), steered(plain, first=37)]
    expected = [alone(model, request) for request in requests]
    assert len({str(answers[0].logprobs) for answers in expected}) == 4
    running, hits = engine(model), []
    for request, answers in zip(2 * requests, 2 * expected, strict=True):
        [(found, _)] = running.generate([request])
        hits.append(found[0].num_cached_tokens)
        assert without_cache_hits(found) == answers
    # At first what lies before the block of the first change, then all that can be cached.
    assert hits == [0, 16, 16, 32, 48, 48, 48, 48]
    running.engine.check()


def test_without_the_digest_in_their_names_others_would_read_its_blocks(model, monkeypatch):
    plain = Request("r", PROMPT, PARAMS)
    expected = alone(model, plain)
    monkeypatch.setattr(Tapped, "salted", lambda self, block, parent: parent)
    running = engine(model)
    running.generate([steered(plain)])
    [(found, _)] = running.generate([plain])
    assert without_cache_hits(found) != expected


@pytest.mark.parametrize("sizes", [{}, {"max_batch_size": 11, "max_tokens_per_step": 11}])
def test_neighbours_keep_their_bits_and_so_does_it(model, sizes):
    others = mixed_requests(31)
    changed = [
        steered(Request("add", PROMPT, PARAMS, n=3)),
        steered(Request("zero", PROMPT, PARAMS), Z, op="zero", heads=(1, 2), values=None),
        capturing(steered(Request("seen", PROMPT, PARAMS)), everything(model.config)),
    ]
    requests = [*others[:10], changed[0], *others[10:20], changed[1], changed[2], *others[20:]]
    running = engine(model, **sizes)
    wanted = [engine(model).generate([request])[0] for request in requests]
    for _ in range(2):
        for (expected, expected_rows), (answers, rows) in zip(
            wanted, running.generate(requests), strict=True
        ):
            assert without_cache_hits(answers) == without_cache_hits(expected)
            assert same(rows, expected_rows)
        running.engine.check()


def test_a_change_is_made_again_after_preemption(model):
    params = replace(PARAMS, max_tokens=60)
    requests = [
        steered(Request(str(index), PROMPT[index : index + 30], params), first=index * 20 + 5)
        for index in range(3)
    ]
    running = engine(model, num_blocks=9)
    for request, (answers, _) in zip(requests, running.generate(requests), strict=True):
        assert without_cache_hits(answers) == alone(model, request)
    assert running.engine.stats().preemptions > 0


Rows = Callable[[np.ndarray, np.ndarray], np.ndarray]
DEFINITIONS: dict[str, tuple[dict[str, object], Rows]] = {
    "add": ({"scale": 0.7}, lambda x, v: x + np.float32(0.7) * v),
    "set": ({}, lambda x, v: np.broadcast_to(v, x.shape)),
    "scale": ({"scale": -1.5, "values": None}, lambda x, v: np.float32(-1.5) * x),
    "zero": ({"values": None}, lambda x, v: np.zeros_like(x)),
    "project_out": ({"scale": 0.5}, lambda x, v: x - 0.5 * (x @ unit(v))[:, None] * unit(v)),
    "clamp": (
        {"low": -0.5, "high": 0.25},
        lambda x, v: (
            x + (np.clip(x @ unit(v), -0.5, 0.25) - x @ unit(v))[:, None] * unit(v).astype("f8")
        ),
    ),
}
EXACT = ("add", "set", "scale", "zero")


def unit(v: np.ndarray) -> np.ndarray:
    return v.astype("f8") / np.linalg.norm(v.astype("f8"))


@pytest.mark.parametrize("op", DEFINITIONS)
@pytest.mark.parametrize(
    ("site", "chosen"),
    [(RESID_PRE, {}), (K, {"heads": (3, 1)}), (POST, {"neurons": (500, 2, 31)})],
    ids=["all", "heads", "neurons"],
)
def test_operations_are_what_they_are_defined_to_be(model, op, site, chosen):
    options, define = DEFINITIONS[op]
    place, request = place_of(site, 0), Request("r", PROMPT, PARAMS)
    before = seen(model, request, place)[: len(PROMPT)]
    columns = next(iter(chosen.values()), slice(None))
    where = np.ix_((2, 3, 40), columns) if chosen else ((2, 3, 40),)
    old = before[where].reshape(3, -1)
    values = np.random.default_rng(1).standard_normal(old.shape[1]).astype(np.float32)
    fields = {"values": values} | chosen | options
    item = Intervention(place, op, (2, 3, 40), **fields)  # type: ignore[arg-type]
    after = seen(model, changing(request, item), place)[: len(PROMPT)]
    expected = before.copy()
    expected[where] = define(old, values).reshape(expected[where].shape)
    if op in EXACT:
        assert np.array_equal(bits(after), bits(expected))
    else:
        assert np.allclose(after, expected, rtol=1e-5, atol=1e-5)
    untouched = np.ones(before.shape, bool)
    untouched[where] = False
    assert np.array_equal(bits(after[untouched]), bits(before[untouched]))


def test_one_value_for_each_position(model):
    place, request = Place(RESID_PRE, 1), Request("r", PROMPT, PARAMS)
    before = seen(model, request, place)
    values = np.random.default_rng(2).standard_normal((4, 128)).astype(np.float32)
    item = Intervention(place, "add", (1, 30, 49, 52), values=values)
    shown = capturing(changing(request, item), Capture((Tap(place, ALL),)))
    [(_, rows)] = engine(model, max_batch_size=7, max_tokens_per_step=7).generate([shown])
    [after] = rows.values()
    for row, position in zip(values[:3], (1, 30, 49), strict=True):
        assert np.array_equal(after[position], before[position] + row)
    assert np.array_equal(after[:1], before[:1]) and np.array_equal(after[2:30], before[2:30])


def test_what_becomes_infinite_ends_its_sequence_alone(model):
    place = Place(RESID_PRE, 1)
    huge = [Intervention(place, "scale", ALL, scale=1e6) for _ in range(8)]
    bad, good = Request("bad", PROMPT, PARAMS), Request("good", OTHER, PARAMS)
    (found, _), (answers, _) = engine(model).generate([changing(bad, *huge), good])
    assert isinstance(found[0].error, NonFiniteLogits)
    assert without_cache_hits(answers) == alone(model, good)
