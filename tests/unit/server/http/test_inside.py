"""Files of activations on their way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pythia_bento.handlers.inside_answer import PIECE_BYTES, Answer, Tensor
from pythia_bento.runtime import turns
from pythia_bento.server.http.inside import FileAnswer
from pythia_bento.server.http.lent import EXTENSION
from tests.unit.turning import turning

PIECES = 20
VALUES = np.arange(PIECES * PIECE_BYTES // 4, dtype=np.float32)


class Lent:
    """In place of a connection that is lent what it sends."""

    is_open = False

    def __enter__(self) -> None:
        self.is_open = True

    def __exit__(self, *exception: object) -> None:
        self.is_open = False


@pytest.mark.parametrize("is_lent", [False, True])
async def test_memory_is_lent_until_all_is_sent_and_given_back_then(is_lent: bool) -> None:
    lent, seen, closed = Lent(), list[Any](), list[bool]()
    answer = Answer([Tensor("a", "float32", VALUES)], "m", "f", {}, {}, lambda: closed.append(True))

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            assert lent.is_open == is_lent and not closed
            seen.append(message["body"])

    scope = {"type": "http", "extensions": {EXTENSION: lent} if is_lent else {}}
    await FileAnswer(answer, 60)(scope, None, send)  # type: ignore[arg-type]
    assert closed == [True] and not lent.is_open
    assert b"".join(seen) == answer.header + VALUES.tobytes()
    views = [piece for piece in seen if isinstance(piece, memoryview)]
    assert len(views) == (PIECES if is_lent else 0)
    assert all(np.shares_memory(view, VALUES) for view in views)


async def test_who_reads_as_fast_as_it_is_written_leaves_turns_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PIECE_SECONDS", -1)
    answer = Answer([Tensor("a", "float32", VALUES)], "m", "f", {}, {}, lambda: None)

    async def send(message: Any) -> None:
        """At once."""

    async with turning() as turned:
        before = turned()
        await FileAnswer(answer, 60)({"type": "http"}, None, send)  # type: ignore[arg-type]
        assert turned() - before >= PIECES
