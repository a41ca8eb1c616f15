"""A context variable's value for the length of a ``with``."""

from __future__ import annotations

from contextvars import ContextVar

import pytest

from pythia_bento.telemetry.scoped import Bound

NAME: ContextVar[str] = ContextVar("name", default="nobody")


def test_it_holds_inside_and_not_after() -> None:
    with Bound(NAME, "outer"):
        with Bound(NAME, "inner"):
            assert NAME.get() == "inner"
        assert NAME.get() == "outer"
    assert NAME.get() == "nobody"


def test_an_error_passes_and_ends_it() -> None:
    with pytest.raises(KeyError), Bound(NAME, "outer"):
        raise KeyError
    assert NAME.get() == "nobody"
