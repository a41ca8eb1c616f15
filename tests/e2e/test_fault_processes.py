"""Processes that are told to end or are killed, and disks that are full."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.faulty import all_of, choices, failure, faulty, is_up, running, switch, until, worker
from tests.e2e.probing import DEAD, DIES, ENDS, HEALTHY, probing, told
from tests.e2e.serving import HTTP, START_SECONDS, Server, serve

ROOM = "24m"  # of a disk
LOAD = 24  # requests, of which a busy machine sees some run


@pytest.mark.long
async def test_sigterm_spares_an_engine_in_a_process_of_its_own(home: Path) -> None:
    # Probes are asked every now and then: what they are to see must last.
    settings = {"engine_process": True, "drain_seconds": 5}
    with serve(home, **settings) as server, probing(server, ENDS):
        load = asyncio.create_task(all_of(server, LOAD, max_tokens=450))
        await running(server)
        server.process.send_signal(signal.SIGTERM)  # its supervisor sends it to all processes
        assert len(choices(await load)) == LOAD
        assert await asyncio.to_thread(server.process.wait, 120) == 0


@pytest.mark.long
async def test_sigterm_while_a_checkpoint_is_loaded(home: Path, tmp_path: Path) -> None:
    """Who waits for it has its answer, and the server ends as ever."""
    with faulty(home, tmp_path, models="bundled@*") as server:
        before = _files(home)
        (disk := tmp_path / "disk").touch()
        asked = asyncio.create_task(all_of(server, 1, model="bundled@step256", max_tokens=4))
        await asyncio.to_thread(until, lambda: 'state="loading"} 1' in _metrics(server))
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert not asked.done()
        disk.unlink()
        assert len(choices(await asked)) == 1
        assert await asyncio.to_thread(server.process.wait, 120) == 0
    assert _files(home) == before
    assert "Traceback" not in server.log.read_text()


def _metrics(server: Server) -> str:
    return HTTP.get(f"{server.url}/metrics").text


def _files(home: Path) -> dict[str, int]:
    """Of the store and whatever else is kept there, with their sizes; logs grow."""
    found = (path for path in home.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path.relative_to(home)): path.stat().st_size for path in found}


async def test_an_engine_in_a_process_of_its_own_and_its_death(home: Path) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 22, "temperature": 0}
    with serve(home, engine_process=True) as server:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        [engine] = [p for p in processes if any("spawn_main" in part for part in p.cmdline())]
        answer = HTTP.post(f"{server.url}/v1/completions", json=body).json()
        assert answer["choices"][0]["text"].startswith(", there was a lonely boy named Finn.")
        assert server.metric("generation_tokens_total") >= 22
        server.settled()
        with probing(server, DIES):
            load = asyncio.create_task(all_of(server, LOAD, max_tokens=450))
            await running(server)
            engine.kill()
            answers = await load
        assert {failure(r) for r in answers} == {(503, "engine_unavailable")}
        assert "process ended with -9" in told(server, "livez")
        with probing(server, DEAD | {name: [*DEAD[name], None] for name in DEAD}):
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, 120) == 0
    gone, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive
    assert set(gone) == set(processes)
    assert "leaked" not in server.log.read_text()


@pytest.mark.long
async def test_sigkill_of_the_worker_and_of_everything(home: Path, tmp_path: Path) -> None:
    with faulty(home, tmp_path) as server:
        expected = choices(await all_of(server, 3))
        await _broken_by(server, tmp_path, worker(server))
        await asyncio.to_thread(until, lambda: is_up(server), START_SECONDS)  # another worker
        with probing(server):
            assert choices(await all_of(server, 3)) == expected
            server.settled()
        supervisor = psutil.Process(server.process.pid)
        await _broken_by(server, tmp_path, supervisor, *supervisor.children(recursive=True))
        await asyncio.to_thread(server.process.wait)
    port = httpx.URL(server.url).port
    ports = {"port": port, "grpc_port": server.grpc_port}
    with faulty(home, tmp_path, **ports, drain_seconds=5) as again:  # which probes are to see
        with probing(again):
            assert choices(await all_of(again, 3)) == expected
            again.settled()
        await _supervisor_alone_killed(again, tmp_path)


async def _supervisor_alone_killed(server: Server, place: Path) -> None:
    """The worker answers what is open and follows, rather than hold the ports for ever."""
    switch(place, "slow", 0.03)
    with probing(server, ENDS):
        load = asyncio.create_task(all_of(server, 3, max_tokens=120))
        await running(server, 3)
        process = worker(server)
        server.process.kill()
        assert len(choices(await load)) == 3
        await asyncio.to_thread(process.wait, 120)


async def _broken_by(server: Server, place: Path, *processes: psutil.Process) -> None:
    """Kill them under load: every client sees that its connection broke."""
    switch(place, "slow", 0.1)
    with probing(server, HEALTHY):
        load = asyncio.gather(
            *(all_of(server, 1, max_tokens=450) for _ in range(3)), return_exceptions=True
        )
        await running(server, 3)
    for process in processes:
        process.kill()
    seen = await load
    assert all(isinstance(answer, httpx.TransportError) for answer in seen), seen
    (place / "slow").unlink()


@pytest.mark.long
@pytest.mark.needs("namespaces")
async def test_full_disks(tmp_path: Path) -> None:
    """No room for the log from the start, and none on the disk of BENTOML_HOME later on."""
    home, full = tmp_path / "home", Path("/dev/full")
    home.mkdir()
    mount = f'mount -t tmpfs -o size={ROOM} none {home} && exec "$@"'
    own_disk = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    with serve(home, log=full, prefix=own_disk) as server:
        disk = Path(f"/proc/{worker(server).pid}/root{home}")
        with probing(server):
            expected = choices(await all_of(server, 8))
            with (
                pytest.raises(OSError, match="No space left"),
                (disk / "filler").open("wb") as file,
            ):
                while True:
                    file.write(bytes(1 << 20))
            for path, body in _ALL.items():
                assert HTTP.post(f"{server.url}{path}", json=body).status_code == 200
            assert choices(await all_of(server, 8)) == expected
            bad = HTTP.post(f"{server.url}/v1/completions", json={"prompt": 7})
            assert bad.status_code == 400
            server.settled()
        assert is_up(server)


_ALL = {
    "/generate": {"prompt": "Once", "max_tokens": 2},
    "/score": {"items": [{"prompt": "Once upon a time"}]},
    "/tokenize": {"prompt": "Once"},
}
