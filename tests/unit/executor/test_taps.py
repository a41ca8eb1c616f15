"""What is made of rows: exact arithmetic, and the same whether it comes at once or by a copy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pythia_bento.engine.capture import Capture, Lens, LogitsTap, Project, Tap, layout
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.params import Request
from pythia_bento.errors import CaptureOverflow
from pythia_bento.executor import readers
from pythia_bento.executor.capture_memory import CaptureMemory
from pythia_bento.executor.changes import Change, total
from pythia_bento.executor.outlets import Outlet
from pythia_bento.executor.readers import products, region_of
from pythia_bento.executor.spans import span_of
from pythia_bento.model.sites import EMBED, RESID_POST, Place, Q
from tests.unit.engine.toy import ToyExecutor, ToyModel, request, toy_engine

HASH, TOKEN = Place(RESID_POST), Place(EMBED)
ALL = range(2**31)
SHOWN = Capture(
    (
        Tap(TOKEN, ALL, dtype="bfloat16"),
        Tap(HASH, range(1, 2**31, 2)),
        Tap(HASH, ALL, reduction="mean"),
        Tap(HASH, ALL, reduction="norm"),
        Tap(HASH, (2, 5, 6), reduction=Lens(3, (5, 7))),
        Tap(HASH, (0,), reduction=Lens(0)),
        Tap(HASH, ALL, reduction=Project(np.array([[2.0], [-3.0]], np.float32))),
    ),
    LogitsTap((1, 2, 3), ALL),
)
ASKED = replace(request("a", (5, 6, 7, 9, 10, 11), max_tokens=4, ignore_eos=True), capture=SHOWN)


@given(st.integers(1, 70), st.integers(1, 9))
def test_a_total_is_that_of_its_row_alone(width: int, rows: int) -> None:
    values = torch.from_numpy(np.random.default_rng(width).standard_normal((rows, width), "f4"))
    found = total(values)
    assert torch.equal(found, torch.stack([total(row) for row in values]))
    assert torch.equal(found, total(torch.cat((values, values)))[rows:])
    assert torch.allclose(found.double(), values.double().sum(1), atol=1e-4)


def test_products_are_the_same_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.standard_normal((5, 2, 33), "f4"))
    directions = torch.from_numpy(rng.standard_normal((7, 33), "f4"))
    found = products(values, directions)
    assert found.shape == (5, 2, 7)
    assert torch.allclose(found, values @ directions.T, atol=1e-4)
    monkeypatch.setitem(readers.PRODUCTS, "cpu", 700)
    assert torch.equal(products(values, directions), found)
    assert torch.equal(products(values[2:3], directions[4:5])[0], found[2, :, 4:5])


@pytest.mark.parametrize("positions", [range(3, 6), (3, 5)])
@pytest.mark.parametrize("op", ["add", "set", "scale", "zero", "project_out", "clamp"])
def test_scaled_halves_are_changed_as_their_values_are(op: Any, positions: Any) -> None:
    """As a GPU holds them: fp16 times a power of two, in rows with gaps between them."""
    pieces = torch.from_numpy(np.random.default_rng(1).standard_normal((8, 2, 3, 4), "f4"))
    memory = pieces.half()
    rows, exponent = memory[:, :, 1], 5  # a site among three that lie side by side
    values = np.arange(1, 9, dtype="f4") if op not in ("scale", "zero") else None
    item = Intervention(Place(Q), op, positions, values=values, scale=2.0, low=-9.0, high=9.0)
    span = span_of(positions, 0, 2, 7, -1, torch.device("cpu"))
    assert span is not None
    wide = rows.float() * 32
    Change.of(item, torch.device("cpu")).apply(wide, span, 0)
    before = memory.clone()
    Change.of(item, torch.device("cpu")).apply(rows, span, exponent)
    assert torch.equal(rows, (wide / 32).half())
    changed = (memory != before).any(dim=3)
    assert changed[[p - 1 for p in positions], :, 1].any() and not changed[:, :, (0, 2)].any()


def parts(asked: Request, arena: np.ndarray) -> list[bytes]:
    assert asked.capture is not None
    _, nbytes = layout(asked.capture, ToyModel().config, asked.most_inputs)
    return [arena[:nbytes].tobytes()]


def generate(asked: Request, kind: type[ToyExecutor] = ToyExecutor, **sizes: int) -> Any:
    """Its answer, and all bytes of its region."""
    engine, arena = toy_engine(64, kind=kind, **sizes), np.zeros(4096, np.uint8)
    engine.lend(arena)
    [[answer]] = engine.generate([asked])
    return answer, parts(asked, arena)


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captures take the way of a device that is not the host."""
    made = Outlet.__init__

    def init(self: Outlet, device: torch.device, stream: Any = None) -> None:
        made(self, device, stream)
        self._is_host = False

    monkeypatch.setattr(Outlet, "__init__", init)


def test_what_comes_by_a_copy_is_the_same(deferred: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = generate(ASKED)
    monkeypatch.undo()
    assert found == generate(ASKED) == generate(ASKED, max_batch_size=2, max_tokens_per_step=2)
    assert found[0] == generate_plain(ASKED)


def generate_plain(asked: Request) -> Any:
    [[answer]] = toy_engine(64).generate([replace(asked, capture=None)])
    return answer


@pytest.mark.parametrize("way", ["at once", "by a copy"])
def test_the_first_position_that_does_not_fit_is_named(
    way: str, request: pytest.FixtureRequest
) -> None:
    if way == "by a copy":
        request.getfixturevalue("deferred")
    values = np.array([[65519.0], [65520.0], [-1e6]], np.float32)
    change = interventions([Intervention(TOKEN, "set", (1, 3, 4), values=values)])
    taps = tuple(Tap(TOKEN, ALL, dtype=dtype) for dtype in ("bfloat16", "float16", "float32"))
    asked = replace(ASKED, capture=Capture(taps), interventions=change)
    for sizes in ({}, {"max_batch_size": 1, "max_tokens_per_step": 1}):
        answer, _ = generate(asked, **sizes)
        assert answer.finish_reason == "error"
        assert isinstance(answer.error, CaptureOverflow)
        assert answer.error.message == (
            "hook_embed at position 3 does not fit float16; ask for float32 or bfloat16"
        )


class Failing(ToyExecutor):
    """Finds no memory for the tokens of its first pass, whose rows it has written by then."""

    passes = 0

    def _logits_of(self, hidden: Tensor, rows: list[int]) -> Tensor:
        self.passes += 1
        if self.passes == 1:
            raise MemoryError("no room for logits")
        return super()._logits_of(hidden, rows)


def test_a_pass_that_is_made_again_counts_once() -> None:
    assert generate(ASKED, Failing) == generate(ASKED)


def test_a_pass_that_fails_waits_for_what_still_writes_to_the_arena(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: events.append("nothing writes"))

    class Told(Failing):
        def recover(self) -> None:
            events.append("made again")
            super().recover()

    wanted = generate(ASKED)
    monkeypatch.setattr(CaptureMemory, "stream", lambda memory: stream)
    assert generate(ASKED, Told) == wanted
    assert events[:2] == ["nothing writes", "made again"]


def test_a_region_outside_of_the_arena_is_never_written_to() -> None:
    with pytest.raises(RuntimeError, match="no such region"):
        region_of(np.zeros(64, np.uint8), 60, 5)
    with pytest.raises(RuntimeError, match="no such region"):
        region_of(None, 0, 5)
