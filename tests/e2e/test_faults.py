"""Faults of the device and the engine, injected into real servers: what clients and probes see."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from pythia_bento.client import AsyncClient
from pythia_bento.errors import EngineUnavailable, NonFiniteLogits
from tests.e2e.faulty import BODY, all_of, choices, failure, faulty, is_up, running, switch, until
from tests.e2e.probing import DIES, ENDS, probing, told
from tests.e2e.serving import HTTP, Server
from tests.unit import turning


async def streamed(server: Server, **fields: Any) -> dict[str, Any]:
    """The last event of a stream."""
    body = BODY | {"stream": True} | fields
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        response = await client.post("/v1/completions", json=body)
    assert response.status_code == 200
    return json.loads(response.text.strip().rpartition("\n")[2].removeprefix("data: "))


async def called(server: Server, prompt: Any) -> Any:
    """The same over gRPC."""
    async with AsyncClient(f"grpc://127.0.0.1:{server.grpc_port}") as client:
        return await client.generate(prompt, max_tokens=40, ignore_eos=True)


async def test_faults_that_are_survived(failing: Server, place: Path) -> None:
    expected = choices(await all_of(failing, 12))
    with probing(failing):
        await _out_of_memory(failing, place, expected)
        await _not_a_number(failing, place, expected)
        await _wrong_clock(failing, place, expected)
        failing.settled()


async def _out_of_memory(server: Server, place: Path, expected: list[Any]) -> None:
    switch(place, "oom", 4)  # passes of four rows or more have no memory
    assert choices(await all_of(server, 12)) == expected
    switch(place, "oom", 1)
    [failed] = await all_of(server, 1)
    assert failure(failed) == (503, "out_of_memory")
    (place / "oom").unlink()
    assert choices(await all_of(server, 12)) == expected


async def _not_a_number(server: Server, place: Path, expected: list[Any]) -> None:
    """In all that is computed of one token, which the stories of the model never have."""
    asked = HTTP.post(f"{server.url}/tokenize", json={"prompt": "\N{SNOWMAN}"})
    ids = [*asked.json()["tokens"], 5]
    switch(place, "slow", 0.2)
    switch(place, "nan", ids[0])
    load = asyncio.create_task(all_of(server, 12))
    await running(server, 12)
    switch(place, "slow", 0.01)
    [failed] = await all_of(server, 1, prompt=ids)
    assert failure(failed) == (500, "non_finite_logits")
    assert (await streamed(server, prompt=ids))["error"]["code"] == "non_finite_logits"
    with pytest.raises(NonFiniteLogits):
        await called(server, ids)
    assert choices(await load) == expected
    assert server.metric("corrupted_requests_total") == 3
    (place / "nan").unlink()
    assert choices(await all_of(server, 1, prompt=ids))  # nothing of it was kept


async def _wrong_clock(server: Server, place: Path, expected: list[Any]) -> None:
    for day in ("86400", "-86400"):
        switch(place, "slow", 0.2)
        load = asyncio.create_task(all_of(server, 12))
        await running(server)
        switch(place, "clock", day)
        switch(place, "slow", 0.01)
        assert choices(await load) == expected
        [after] = await all_of(server, 1)
        assert abs(after.json()["created"] - time.time() - float(day)) < 3600


async def test_sigterm_under_load_finishes_what_is_open(failing: Server, place: Path) -> None:
    """The last one of all that ask this server."""
    switch(place, "slow", 0.05)
    with probing(failing, ENDS):
        load = asyncio.create_task(all_of(failing, 8, max_tokens=480))
        await running(failing, 8)
        failing.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: not is_up(failing))
        assert told(failing, "readyz") == "the server is shutting down"
        [still] = await all_of(failing, 1, max_tokens=1)  # balancers have time to notice
        assert still.status_code == 200
        refused = still
        while refused.status_code == 200:
            [refused] = await all_of(failing, 1, max_tokens=1)
        assert failure(refused) == (503, "engine_unavailable")
        assert "shutting down" in refused.json()["error"]["message"]
        assert not load.done()
        switch(place, "slow", 0.001)
        assert len(choices(await load)) == 8
        assert await asyncio.to_thread(failing.process.wait, 120) == 0


@pytest.mark.long
async def test_an_error_that_no_engine_survives(home: Path, tmp_path: Path) -> None:
    with faulty(home, tmp_path) as server:
        with probing(server, DIES):
            (tmp_path / "die").touch()
            died = await all_of(server, 3)
            [after] = await all_of(server, 1)
        assert {failure(r) for r in (*died, after)} == {(503, "engine_unavailable")}
        assert "ZeroDivisionError" in after.json()["error"]["message"]
        assert "ZeroDivisionError" in told(server, "livez")
        assert "ZeroDivisionError" in told(server, "readyz")


async def test_overload_and_an_engine_that_hangs(home: Path, tmp_path: Path) -> None:
    switch(tmp_path, "slow", 0.5)
    settings = {"max_batch_size": 4, "max_queue": 8, "stall_seconds": 5}
    with faulty(home, tmp_path, **settings) as server:
        with probing(server):
            asked = [asyncio.create_task(all_of(server, 1, seed=i)) for i in range(60)]
            await turning.until(lambda: sum(one.done() for one in asked) >= 40)
            switch(tmp_path, "slow", 0.01)
            _refused_early([answer for one in asked for answer in await one])
            server.settled()
        with probing(server, DIES):
            (tmp_path / "hang").touch()
            call = asyncio.create_task(called(server, "Once"))
            answers, event = await asyncio.gather(all_of(server, 3), streamed(server))
            with pytest.raises(EngineUnavailable, match="it made no step in 5 seconds"):
                await call
            [after] = await all_of(server, 1)
        assert {failure(r) for r in (*answers, after)} == {(503, "engine_unavailable")}
        assert event["error"]["code"] == "engine_unavailable"
        for probe in ("livez", "readyz"):
            assert told(server, probe) == "the engine hangs: it made no step in 5 seconds"
        assert "tests/faults/service.py" in server.log.read_text()  # where it hangs
        server.process.terminate()  # as Kubernetes does now; the kernel still does not come back
        assert await asyncio.to_thread(server.process.wait, 120) == 0


def _refused_early(answers: list[httpx.Response]) -> None:
    refused = [r for r in answers if r.status_code == 429]
    assert len(refused) >= 40
    assert len(refused) + sum(r.status_code == 200 for r in answers) == 60
    for response in refused:
        assert response.json()["error"]["code"] == "overloaded"
        assert 1 <= int(response.headers["retry-after"]) <= 60
