"""Real ``bentoml serve`` processes on free ports, with everything they start ended at the end."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from pythia_bento.settings import Settings
from tests.at_once import COVERAGE, Fork, shared

ROOT = Path(__file__).parents[2]
BENTOML = str(Path(sys.executable).parent / "bentoml")
MAX_BODY: int = Settings.model_fields["max_body_bytes"].default
START_SECONDS = 300
MAX_WORK_MS = 250  # of an event loop, in one piece
# For all plain questions: each new client would read the system's certificates, for 50 ms.
HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=60)
# Linux gives ports from 32,768 on to connections: one of those may be gone when a server wants it.
PORTS = range(10_000, 32_768)


LOGS: list[Path] = []
"""Of all servers that this process has started."""


def long_work(log: str) -> list[int]:
    """Milliseconds that an event loop worked in one piece, where that is too long."""
    found = map(int, re.findall(r"event loop turns again after .* worked for (\d+) ms", log))
    return [milliseconds for milliseconds in found if milliseconds > MAX_WORK_MS]


@dataclass
class Server:
    """A server that is ready."""

    url: str
    grpc_port: int
    process: subprocess.Popen[bytes] | Fork
    log: Path

    def metric(self, name: str) -> float:
        return self.metrics(name)[0]

    def metrics(self, *names: str) -> list[float]:
        """All of one page."""
        page = HTTP.get(f"{self.url}/metrics").text
        found = [re.search(rf"^pythia_{re.escape(n)} (\S+)$", page, re.MULTILINE) for n in names]
        assert all(found), page
        return [float(value[1]) for value in found if value]

    def settled(self, seconds: float = 120) -> None:
        """Wait until no sequence runs or waits and no block is held."""
        names = ("num_requests_running", "num_requests_waiting", "kv_blocks_used")
        end = time.monotonic() + seconds
        while any(left := self.metrics(*names)):
            assert time.monotonic() < end, dict(zip(names, left, strict=True))
            time.sleep(0.02)


def environment(home: Path, **settings: object) -> dict[str, str]:
    """A home and a gRPC port of its own, one thread a pool, no usage report, and settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHIA_")}
    return {
        **kept,
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "OMP_NUM_THREADS": "1",
        "PYTHIA_DEVICE": "cpu",
        "PYTHIA_GRPC_HOST": "127.0.0.1",
        "PYTHIA_GRPC_PORT": str(free_port()),
        **{f"PYTHIA_{key.upper()}": str(value) for key, value in settings.items()},
    }


@contextlib.contextmanager
def serve(
    home: Path,
    *arguments: str,
    cwd: Path = ROOT,
    port: int = 0,
    log: Path | None = None,
    prefix: Sequence[str] = (),
    bentoml: Sequence[str] = (),
    verb: str = "serve",
    first: str = "",
    is_measured: bool = False,
    **settings: object,
) -> Iterator[Server]:
    """Start ``<prefix> bentoml <verb> <arguments>`` and wait until it is ready.

    It is not asked before ``first`` is in its log. With ``is_measured`` it counts for coverage,
    where that is asked for, and starts half as fast. Without ``prefix`` and ``bentoml`` it is
    a fork that need not import anything.
    """
    port = port or free_port()
    log = log or home / f"serve-{port}.log"
    LOGS.append(log)
    variables = environment(home, **settings)
    if not is_measured:
        variables.pop(COVERAGE, None)
    process: subprocess.Popen[bytes] | Fork
    command = [verb, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        if bentoml or prefix:
            whole = [*prefix, *(bentoml or [BENTOML]), *command]
            process = subprocess.Popen(whole, cwd=cwd, env=variables, stdout=output, stderr=output)
        else:
            process = Fork(shared() / "bentoml", command, cwd, variables, output.fileno())
    try:
        grpc_port = int(variables["PYTHIA_GRPC_PORT"])
        server = Server(f"http://127.0.0.1:{port}", grpc_port, process, log)
        _wait_until_ready(server, first)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def free_port() -> int:
    """One that nobody listens at; another test that asks now gets another one, most probably."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _wait_until_ready(server: Server, first: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if first and first not in server.log.read_text():
                pass
            elif HTTP.get(f"{server.url}/readyz", timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(server.log.read_text() if server.log.is_file() else server.log)
