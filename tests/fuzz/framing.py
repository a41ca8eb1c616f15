"""Thousands of HTTP framings, right and wrong, against a server of its own.

usage: python -m tests.fuzz.framing [--count N] [--seed N]

Each request gets one answer of its own, 2xx or 4xx, in order, or the connection closes; none does
whose framing two readers may understand in two ways, and no request inside of another. Afterwards
the server is well, its log has no traceback, and its memory is what it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from tests.e2e.serving import Server, serve
from tests.fuzz.framings import INNER, TOLERATED, Framing, framing

AT_ONCE = 32
SILENCE = 1.5  # seconds after which an unsound connection is left
PATIENCE = 60  # of a sound one
GROWTH = 0.10  # of the memory that there was after a tenth of the connections
HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(.*?\r\n)??\r\n", re.DOTALL)


class Answer(NamedTuple):
    """What a client sees of one."""

    status: int
    id: str  # of the request, as far as the server knew it


class Result(NamedTuple):
    """Counts of what was seen, and what must not be."""

    counts: Counter[str]
    faults: list[str]


def fuzz(server: Server, count: int, seed: int) -> Result:
    """Connections of a seed, some at a time."""
    log_before = len(server.log.read_bytes())
    result = Result(Counter(), [])
    warm = count // 10
    asyncio.run(_run(server, range(warm), seed, result))
    before = _rss(server)
    asyncio.run(_run(server, range(warm, count), seed, result))
    server.settled()
    after = _rss(server)
    if after > before * (1 + GROWTH):
        result.faults.append(f"memory grew from {before >> 20} to {after >> 20} MiB")
    log = server.log.read_bytes()[log_before:].decode(errors="replace")
    if "Traceback" in log:
        result.faults.append(log[log.index("Traceback") :][:5000])
    return result


async def _run(server: Server, numbers: range, seed: int, result: Result) -> None:
    left = iter(numbers)

    async def worker() -> None:
        for number in left:
            made = framing(seed, number)
            for fault in await _try(server, made, result.counts):
                result.faults.append(f"{number}: {fault}\n{made}")

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def _try(server: Server, made: Framing, counts: Counter[str]) -> list[str]:
    data, closed = await _exchange(server, made)
    try:
        methods = [message.method for message in made.messages]
        # A reset cuts off what is on its way: it comes where a wrong request was not read whole.
        found = list(answers(data, methods, may_be_cut=closed and not made.is_sound))
    except ValueError as error:
        return [f"{error}: {data!r}"]
    counts["connections"] += 1
    counts["requests"] += len(made.messages)
    counts.update(f"{answer.status}" for answer in found)
    counts[f"{'sound' if made.is_sound else 'unsound'}, {'closed' if closed else 'left'}"] += 1
    return [f"{fault}: {data[-2000:]!r}" for fault in faults(made, found, closed)]


def faults(made: Framing, found: list[Answer], closed: bool) -> Iterator[str]:
    """What is wrong with the answers on a connection."""
    ids = [answer.id for answer in found]
    if INNER in ids:
        yield "a request inside of another was answered"
    if any(answer.status >= 500 for answer in found):
        yield "status of 500 or above"
    named = [id for id in ids if id]
    if named != [str(number) for number in range(len(named))]:
        yield f"answers are not those of the requests in order: {ids}"
    if any(not id for id in ids[:-1]) or (found and not ids[-1] and found[-1].status < 400):
        yield "an answer of no request, and not at the end"
    if len(named) > made.num_sound and made.fault not in TOLERATED:
        yield "a request that is framed wrong was answered as if it were not"
    if made.is_sound and (len(named) < len(made.messages) or not closed):
        yield f"{len(named)} of {len(made.messages)} sound requests are answered"


async def _exchange(server: Server, made: Framing) -> tuple[bytes, bool]:
    """What came back, and whether the server closed the connection."""
    where = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    data = bytearray()
    sending = asyncio.create_task(_send(writer, made.pieces))
    try:
        while True:
            try:
                seconds = PATIENCE if made.is_sound else SILENCE
                piece = await asyncio.wait_for(reader.read(1 << 16), seconds)
            except asyncio.TimeoutError:
                return bytes(data), False
            except ConnectionError:
                return bytes(data), True
            if not piece:
                return bytes(data), True
            data += piece
    finally:
        sending.cancel()
        writer.close()
        await asyncio.gather(sending, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, pieces: list[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)  # so that the next one is a segment of its own


def answers(data: bytes, methods: list[str], may_be_cut: bool = False) -> Iterator[Answer]:
    """Those in ``data``, interim ones left out. Raises ValueError where it is none."""
    place, asked = 0, iter(methods)
    while place < len(data):
        head = HEAD.match(data, place)
        if not head and may_be_cut and b"\r\n\r\n" not in data[place:]:
            return
        if not head:
            raise ValueError(f"no answer at byte {place}")
        status = int(head[1])
        if status == 100:
            place = head.end()
            continue
        length = re.search(rb"(?i)^content-length: (\d+)\r?$", head[2] or b"", re.MULTILINE)
        id = re.search(rb"(?i)^x-request-id: (.*?)\r?$", head[2] or b"", re.MULTILINE)
        is_bare = id is not None and next(asked, "") == "HEAD"
        size = 0 if is_bare or not length else int(length[1])
        if head.end() + size > len(data):
            if may_be_cut:
                return
            raise ValueError(f"answer at byte {place} is cut off")
        yield Answer(status, id[1].decode() if id else "")
        place = head.end() + size


def _rss(server: Server) -> int:
    main = psutil.Process(server.process.pid)
    return sum(process.memory_info().rss for process in (main, *main.children(recursive=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, serve(Path(home)) as server:
        result = fuzz(server, options.count, options.seed)
    for what, count in sorted(result.counts.items()):
        print(f"{count:8} {what}")
    for fault in result.faults[:20]:
        print(fault)
    print(f"{len(result.faults)} faults")
    sys.exit(1 if result.faults else 0)


if __name__ == "__main__":
    main()
