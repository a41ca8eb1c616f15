"""Clients in a process of their own, so that they cost the server nothing.

``python -m bench.serving.client`` reads a ``Job`` as a line of JSON, says "ready", waits for a
line, runs the job and prints a list of ``Timing``. Plain sockets: a client library would spend more
than the server that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

from bench.common.stats import Timing

try:
    from uvloop import run as run_loop
except ImportError:
    from asyncio import run as run_loop

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_USED = re.compile(rb'"completion_tokens":\s?(\d+)')
_END = b"0\r\n\r\n"  # of a chunked body


@dataclass(frozen=True, slots=True)
class Job:
    """``clients`` connections, each with ``rounds`` requests one after another."""

    transport: str
    host: str
    port: int
    clients: int
    rounds: int
    prompt: int  # tokens
    new: int  # tokens
    vocabulary: int  # prompts are drawn from the ids 1 to this
    seed: int


class Connection(Protocol):
    """One client of a transport."""

    async def complete(self, prompt: list[int], new: int) -> Timing:
        """Ask for ``new`` greedy tokens; raises RuntimeError on any other answer."""
        ...

    async def close(self) -> None: ...


class Http:
    """``/v1/completions`` over one kept-alive connection; streamed or not."""

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, host: str, port: int, stream: bool) -> Http:
        self = cls(stream)
        self._reader, self._writer = await asyncio.open_connection(host, port, limit=1 << 22)
        return self

    async def complete(self, prompt: list[int], new: int) -> Timing:
        request = self._request(prompt, new)
        timing = Timing(time.monotonic())
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length:
            body = await self._reader.readexactly(int(length[1]))
        else:
            body = await self._chunks(timing)
        timing.end = time.monotonic()
        used = _USED.findall(body)
        if not head.startswith(b"HTTP/1.1 200") or not used or int(used[-1]) != new:
            raise RuntimeError(f"not an answer of {new} tokens: {head!r} {body[-500:]!r}")
        timing.tokens = new
        return timing

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _request(self, prompt: list[int], new: int) -> bytes:
        fields = {"prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True}
        if self._stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(fields).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"Content-Type: application/json\r\n\r\n" + body

    async def _chunks(self, timing: Timing) -> bytes:
        """The end of a chunked body; notes when events with choices came."""
        tail = b""
        while not tail.endswith(_END):
            data = await self._reader.read(1 << 20)
            if not data:
                raise RuntimeError(f"the connection was closed after {tail!r}")
            if b'"index":' in data:
                timing.arrivals.append(time.monotonic())
            tail = (tail + data)[-2000:]
        return tail


async def _http(host: str, port: int) -> Connection:
    return await Http.connect(host, port, stream=False)


async def _http_stream(host: str, port: int) -> Connection:
    return await Http.connect(host, port, stream=True)


# Another transport needs a Connection and a line here.
TRANSPORTS = {"http": _http, "http-stream": _http_stream}


async def run(job: Job, started: Callable[[], None] = lambda: None) -> list[Timing]:
    """Connect all clients, call ``started``, and run them."""
    connect = TRANSPORTS[job.transport]
    connections = [await connect(job.host, job.port) for _ in range(job.clients)]
    draw = random.Random(job.seed)
    prompts = [
        [[draw.randint(1, job.vocabulary) for _ in range(job.prompt)] for _ in range(job.rounds)]
        for _ in connections
    ]
    await asyncio.to_thread(started)

    async def one(connection: Connection, prompts: list[list[int]]) -> list[Timing]:
        return [await connection.complete(prompt, job.new) for prompt in prompts]

    try:
        done = await asyncio.gather(*map(one, connections, prompts))
    finally:
        for connection in connections:
            await connection.close()
    return [timing for timings in done for timing in timings]


def run_all(jobs: list[Job]) -> list[Timing]:
    """Each job in a process of its own, all started together."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(job)) for job in jobs]
        for process in processes:
            _expect(process, "ready\n")
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a client failed; its error is above")
    return [Timing(**fields) for answer in answers for fields in json.loads(answer)]


@contextlib.contextmanager
def _process(job: Job) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.serving.client"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        assert process.stdin
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()


def _expect(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout
    if process.stdout.readline() != line:
        raise RuntimeError("a client failed; its error is above")


def main() -> None:
    def started() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    job = Job(**json.loads(sys.stdin.readline()))
    _write(json.dumps([asdict(timing) for timing in run_loop(run(job, started))]))


def _write(text: str) -> None:
    """All of it: with PYTHONUNBUFFERED a print ends with what a pipe takes at once."""
    os.set_blocking(sys.stdout.fileno(), True)
    left = memoryview(text.encode())
    while left:
        left = left[os.write(sys.stdout.fileno(), left) :]


if __name__ == "__main__":
    main()
