"""A rolling restart under load: two servers behind a small proxy, and not one failed request."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import Server, serve
from tests.unit.turning import until

REQUESTS = 1000
CLIENTS = 12
PAUSE = 0.2  # seconds between two requests of a client; servers that start need processors too
ONE_EACH = httpx.Limits(max_keepalive_connections=0)  # connection for each request
SETTINGS = {"drain_seconds": 5}  # within which a busy machine's proxy looks at every server


class Proxy:
    """Hands connections to the servers that are ready, in turn: what a Kubernetes Service does."""

    def __init__(self) -> None:
        self._ready: list[Server] = []
        self._turn = 0
        self._tasks: set[asyncio.Task[None] | None] = set()  # the loop itself forgets them
        self._watches: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exception: object) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)  # which closes connections
        self._server.close()
        await until(lambda: not self._tasks)

    async def add(self, server: Server) -> None:
        """Returns once it is asked too."""
        self._watches.append(asyncio.create_task(self._watch(server)))
        await until(lambda: server in self._ready)

    async def _watch(self, server: Server) -> None:
        """Each for itself: one that is slow to say so keeps nobody from hearing another."""
        async with httpx.AsyncClient(timeout=60, verify=False, limits=ONE_EACH) as client:
            while not await _is_ready(client, server):
                await asyncio.sleep(PAUSE)
            self._ready.append(server)
            while await _is_ready(client, server):
                await asyncio.sleep(PAUSE)
            self._ready.remove(server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._connect(self._ready[self._turn % len(self._ready)], reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _connect(
        self, backend: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ours = await asyncio.open_connection("127.0.0.1", httpx.URL(backend.url).port)
        asked = asyncio.create_task(_copy(reader, ours[1]))
        await _copy(ours[0], writer)
        asked.cancel()
        for side in (writer, ours[1]):
            side.close()
            with contextlib.suppress(ConnectionError):
                await side.wait_closed()


async def _is_ready(client: httpx.AsyncClient, server: Server) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await client.get(f"{server.url}/readyz")).status_code == 200
    return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class Load:
    """Clients that ask one thing after another, each by a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: Counter[str] = Counter()
        self.is_over = False

    async def client(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=60, limits=ONE_EACH) as client:
            while not (self.is_over and self.answers.total() >= REQUESTS):
                body = {"prompt": f"{number}", "max_tokens": 4, "stream": number % 3 == 0}
                try:
                    answer = await client.post(
                        "/v1/completions", json=body, headers={"connection": "close"}
                    )
                    whole = not body["stream"] or answer.text.endswith("data: [DONE]\n\n")
                    self.answers[f"{answer.status_code} {whole}"] += 1
                except httpx.HTTPError as error:
                    self.answers[repr(error)] += 1
                await asyncio.sleep(PAUSE)


@pytest.mark.long
async def test_no_request_fails(home: Path) -> None:
    with contextlib.ExitStack() as first, contextlib.ExitStack() as last:
        async with Proxy() as proxy:
            servers = [first.enter_context(serve(home, **SETTINGS)) for _ in range(2)]
            await asyncio.gather(*map(proxy.add, servers))
            load = Load(proxy.url)
            clients = [asyncio.create_task(load.client(i)) for i in range(CLIENTS)]
            for old in servers:
                old.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(old.process.wait, 120) == 0
                new = await asyncio.to_thread(last.enter_context, serve(home, **SETTINGS))
                await proxy.add(new)
            load.is_over = True
            await asyncio.gather(*clients)
    assert load.answers.keys() == {"200 True"}, load.answers
    assert load.answers.total() >= REQUESTS
