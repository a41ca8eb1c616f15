"""Answers of 256 MiB for readers who take their time: ``python -m bench.serving.slow_readers``.

Twenty readers ask ``/v1/activations`` of ``bundled`` for most sites, read a megabyte a second for a
while and leave in the middle: some have the memory for captures, the others wait for it. Beside
them others ask for short continuations. What is computed takes a device's time and no processor
(``bench.serving.instant``), so that what is seen is what reading does. Wanted: the server's memory
grows by no more than the captures' memory and 64 MiB, the others' median by no more than 20 %.

Then readers leave with nobody waiting: how long until the memory is free (1 s is wanted).
"""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import psutil

from bench.common.options import parser_of
from bench.common.stats import percentile
from bench.gpu import harness
from bench.serving.serve import INSTANT
from bench.serving.server import HOST, Server, serve
from pythia_bento.settings import Settings

PROMPTS, LENGTH = 28, 512
SITES = (
    *("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out"),
    *("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "mlp.hook_post"),
)
SETTINGS = {
    **{"PYTHIA_MODEL": "bundled", "PYTHIA_DEVICE": "cpu"},
    **{"BENCH_STEP_US": "1000", "BENCH_PROMPT_US": "5"},
}
PIECE = 2**16
MOST_GROWTH = 64 * 2**20
MOST_SHARE = 1.2
GONE_SECONDS = 1.0
TIMEOUT = 900.0


def main() -> None:
    """Measure, print, write."""
    parser = parser_of("bench.serving.slow_readers", __doc__)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1e6, help="bytes a second of each")
    parser.add_argument("--seconds", type=float, default=30, help="that each one reads")
    parser.add_argument("--others", type=int, default=2, help="who ask for continuations")
    parser.add_argument(
        "--alone", type=float, default=45, help="seconds of others before and after"
    )
    parser.add_argument("--out", help="a file for the results")
    options = parser.parse_args()
    with serve(SETTINGS, INSTANT) as server:
        _read(server, options.rate, 1.0)  # warms up
        with Others(server, options.others) as others, Memory(server) as memory:
            time.sleep(options.alone)
            before = time.monotonic()
            memory.mark()
            with ThreadPoolExecutor(options.readers) as threads:
                asked = [
                    threads.submit(_read, server, options.rate, options.seconds)
                    for _ in range(options.readers)
                ]
                answers = [one.result() for one in asked]
            after = time.monotonic()
            time.sleep(options.alone)
        gone = [_gone(server, options.rate) for _ in range(5)]
    rows = [others.row(before, after), memory.row(), _gone_row(gone), _readers_row(answers)]
    for row in rows:
        print(row, flush=True)
    if options.out:
        harness.write(options.out, rows)


def _body() -> str:
    tokens = [[1 + (number * 7 + at) % 900 for at in range(LENGTH)] for number in range(PROMPTS)]
    capture = [{"site": f"blocks.*.{site}"} for site in SITES]
    return json.dumps({"prompts": tokens, "capture": capture})


def _read(server: Server, rate: float, seconds: float) -> tuple[int, int, float]:
    """Ask, read for so long and leave: bytes of the answer, those read, seconds until its head."""
    begun = time.monotonic()
    with closing(HTTPConnection(HOST, server.port, timeout=TIMEOUT)) as connection:
        connection.request("POST", "/v1/activations", _body())
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"a reader was answered {answer.status}: {answer.read()[:300]!r}")
        waited, start, count = time.monotonic() - begun, time.monotonic(), 0
        while time.monotonic() < start + seconds and (piece := answer.read(PIECE)):
            count += len(piece)
            time.sleep(max(start + count / rate - time.monotonic(), 0))
        return int(answer.headers["content-length"]), count, waited


class Others:
    """In a context: who ask for short continuations, one after the other."""

    def __init__(self, server: Server, count: int) -> None:
        self._server, self._is_over = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        self._times: list[tuple[float, float]] = []  # when asked, and seconds

    def __enter__(self) -> Others:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        body = json.dumps({"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0})
        with closing(HTTPConnection(HOST, self._server.port, timeout=TIMEOUT)) as connection:
            while not self._is_over.is_set():
                begun = time.monotonic()
                connection.request("POST", "/generate", body)
                answer = connection.getresponse()
                if answer.read() and answer.status != 200:
                    raise RuntimeError(f"a continuation was answered {answer.status}")
                self._times.append((begun, time.monotonic() - begun))

    def row(self, start: float, end: float) -> dict[str, Any]:
        """Milliseconds without readers, and beside them, who were there between two moments."""
        beside = [seconds for begun, seconds in self._times if start <= begun < end]
        alone = [seconds for begun, seconds in self._times if not start <= begun < end]
        share = percentile(beside, 50) / percentile(alone, 50)
        return {
            "kind": "others, continuations of 16 tokens",
            "alone": _summary(alone),
            "beside": _summary(beside),
            "p50_beside_of_alone": round(share, 3),
            "wanted": MOST_SHARE,
            "reached": share <= MOST_SHARE,
        }


def _summary(seconds: list[float]) -> dict[str, float]:
    found = {f"p{name}_ms": percentile(seconds, name) * 1e3 for name in (50, 90, 99)}
    return {"count": len(seconds)} | {name: round(ms, 2) for name, ms in found.items()}


class Memory:
    """In a context: what all processes of a server have in memory, looked at again and again."""

    def __init__(self, server: Server) -> None:
        self._server, self._is_over = server, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._before = self._most = 0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def mark(self) -> None:
        """It has grown by nothing until now."""
        self._before = self._most = self._now()

    def _watch(self) -> None:
        while not self._is_over.wait(0.25):
            self._most = max(self._most, self._now())

    def _now(self) -> int:
        main = psutil.Process(self._server.process.pid)
        processes = (main, *main.children(recursive=True))
        return sum(process.memory_full_info().pss for process in processes)

    def row(self) -> dict[str, Any]:
        """Megabytes."""
        most = Settings().capture_bytes + MOST_GROWTH
        return {
            "kind": "memory of the server's processes",
            "before_mb": round(self._before / 1e6, 1),
            "most_mb": round(self._most / 1e6, 1),
            "growth_mb": round((self._most - self._before) / 1e6, 1),
            "wanted_mb": round(most / 1e6, 1),
            "reached": self._most - self._before <= most,
        }


def _gone(server: Server, rate: float) -> float:
    """Seconds from a reader's leaving until nothing of the memory for captures is used."""
    _read(server, rate, 2.0)
    begun = time.monotonic()
    with closing(HTTPConnection(HOST, server.port, timeout=TIMEOUT)) as connection:
        while _used(connection):
            time.sleep(0.005)
    return time.monotonic() - begun


def _used(connection: HTTPConnection) -> float:
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    found = re.search(r"^pythia_capture_bytes_used(?:{.*})? (\S+)$", page, re.MULTILINE)
    if not found:
        raise RuntimeError("the metrics page has no pythia_capture_bytes_used")
    return float(found[1])


def _gone_row(seconds: list[float]) -> dict[str, Any]:
    return {
        "kind": "a reader leaves, until its memory is free",
        "seconds": [round(one, 3) for one in seconds],
        "wanted": GONE_SECONDS,
        "reached": max(seconds) <= GONE_SECONDS,
    }


def _readers_row(answers: list[tuple[int, int, float]]) -> dict[str, Any]:
    sizes, read, waited = zip(*answers, strict=True)
    return {
        "kind": "readers",
        "count": len(answers),
        "answer_mb": round(sizes[0] / 1e6, 1),
        "read_mb": [round(count / 1e6, 1) for count in read],
        "head_after_s": [round(seconds, 1) for seconds in sorted(waited)],
    }


if __name__ == "__main__":
    main()
