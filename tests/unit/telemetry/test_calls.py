from __future__ import annotations

import asyncio
import re

import pytest

from pythia_bento.telemetry.calls import CallContext, current_call, new_call, working_for


@pytest.mark.parametrize("id", ["a", "x" * 128, "0af7-65.19_16:cd/43+dd=8", "é", "", "x" * 129])
def test_an_id_is_the_clients_where_it_may_be_logged(id: str) -> None:
    chosen = new_call(id).request_id
    is_fine = id.isascii() and 0 < len(id) <= 128
    assert (chosen == id) == is_fine
    assert is_fine or re.fullmatch("[0-9a-f]{32}", chosen)


@pytest.mark.parametrize("id", ["a b", "a\n", "a\x1b[31m", 'a"', "a\r\nx-evil: 1", None])
def test_an_id_that_could_break_a_line_is_replaced(id: str | None) -> None:
    assert re.fullmatch("[0-9a-f]{32}", new_call(id).request_id)


async def test_tasks_belong_to_the_call_they_were_made_in() -> None:
    async def mine() -> CallContext | None:
        return current_call()

    one, other = new_call("one"), new_call("other")
    with working_for(one):
        task = asyncio.create_task(mine())
        with working_for(other):
            assert current_call() is other
        assert current_call() is one
    assert current_call() is None
    assert await task is one


def test_an_error_passes_and_ends_it() -> None:
    with pytest.raises(KeyError), working_for(new_call("one")):
        raise KeyError
    assert current_call() is None


def test_a_call_that_asked_nothing_of_the_engine() -> None:
    assert new_call(None).log_fields() == {}
