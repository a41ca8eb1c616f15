"""A gRPC server whose event loop has a thread of its own, for tests that block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.server import GrpcServer
from pythia_bento.settings import Settings

HOST = "127.0.0.1"


def grpc_settings(**settings: Any) -> Settings:
    """On loopback, on a port of the system's choice."""
    return Settings(**{"grpc_host": HOST, "grpc_port": 0, "request_timeout": 10} | settings)


@contextlib.contextmanager
def background_server(runner: PythiaRunner, **settings: Any) -> Iterator[int]:
    """The port of a server, which is stopped at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def started() -> GrpcServer:
        chosen = grpc_settings(**settings)
        server = GrpcServer(runner, chosen, AccessControl.from_settings(chosen))
        await server.start()
        return server

    try:
        server = run(started())
        yield server.port
        run(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
