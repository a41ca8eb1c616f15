"""What the probes say while something goes wrong, and after it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.serving import HTTP, Server

PAUSE = 0.1  # seconds between questions
PATIENCE = 60  # seconds; a probe that is not answered at all is no answer

HEALTHY = {"livez": [200], "readyz": [200], "grpc": ["SERVING"]}
DIES = {"livez": [200, 503], "readyz": [200, 503], "grpc": ["SERVING", "NOT_SERVING"]}
DEAD = {name: answers[1:] for name, answers in DIES.items()}
ENDS = {  # lives, but takes nothing more, and is gone
    "livez": [200, None],
    "readyz": [200, 503, None],
    "grpc": ["SERVING", "NOT_SERVING", None],
}


@contextlib.contextmanager
def probing(server: Server, expected: dict[str, list[Any]] = HEALTHY) -> Iterator[None]:
    """Ask all probes before, all the time, and once more after; None is no answer.

    ``expected`` are each one's answers without repetitions, which ones and in which order.
    """
    probes = _Probes(server)
    probes.ask()
    thread = threading.Thread(target=probes.run)
    thread.start()
    try:
        yield
    finally:
        probes.is_over.set()
        thread.join()
    probes.ask()
    assert probes.answers == expected


def told(server: Server, probe: str) -> str:
    """The sentence of a probe that says no."""
    response = HTTP.get(f"{server.url}/{probe}", timeout=PATIENCE)
    assert response.status_code == 503, response.text
    return str(response.json()["error"]["message"])


class _Probes:
    def __init__(self, server: Server) -> None:
        self._server = server
        self.answers: dict[str, list[Any]] = {"livez": [], "readyz": [], "grpc": []}
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(PAUSE):
            self.ask()

    def ask(self) -> None:
        for name, answers in self.answers.items():
            answer = self._grpc() if name == "grpc" else self._http(name)
            if answers[-1:] != [answer]:
                answers.append(answer)

    def _http(self, name: str) -> int | None:
        with contextlib.suppress(httpx.HTTPError):
            return HTTP.get(f"{self._server.url}/{name}", timeout=PATIENCE).status_code
        return None

    def _grpc(self) -> str | None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        address = f"127.0.0.1:{self._server.grpc_port}"
        with grpc.insecure_channel(address, options) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            with contextlib.suppress(grpc.RpcError):
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
                return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
        return None
