"""Long work in pieces."""

from __future__ import annotations

import asyncio

import pytest

from pythia_bento.runtime import turns


def test_many_values_are_freed_while_the_loop_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PIECE_SECONDS", 0.0)
    sizes: list[int] = []

    async def watch(values: list[object]) -> None:
        while values:
            sizes.append(len(values))
            await asyncio.sleep(0)

    async def both() -> None:
        values = [object() for _ in range(50)]
        await asyncio.gather(watch(values), turns.freed(values))
        assert values == []

    asyncio.run(both())
    assert len(sizes) >= 50
