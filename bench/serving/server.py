"""The service as a user starts it, on a free port, ended on the way out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
START_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Server:
    """A service that is ready."""

    port: int
    grpc_port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def grpc_target(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        main = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (main, *main.children(recursive=True))]
        return sum(time.user + time.system for time in times)


@contextmanager
def serve(
    settings: Mapping[str, str], target: str = "service:Pythia", tree: Path = ROOT
) -> Iterator[Server]:
    """``bentoml serve`` in the checkout ``tree``; ``settings`` are environment variables."""
    port, grpc_port = _free_ports(2)
    command = [
        *(sys.executable, "-m", "bentoml", "serve", target),
        *("--host", HOST, "--port", str(port)),
    ]
    environment = _environment(
        tree, {"PYTHIA_GRPC_HOST": HOST, "PYTHIA_GRPC_PORT": str(grpc_port), **settings}
    )
    process = subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.DEVNULL)
    try:
        server = Server(port, grpc_port, process)
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _environment(tree: Path, settings: Mapping[str, str]) -> dict[str, str]:
    # The package need not be installed: the working tree is enough.
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
    return os.environ | {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": path, **settings}


def _wait_until_ready(server: Server) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/readyz").is_success:
                return
        time.sleep(0.2)
    raise RuntimeError("the service did not become ready; its messages are above")
