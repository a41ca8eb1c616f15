"""The inside of a pass through the service: ``python -m bench.serving.inside``.

One client after the other asks ``/v1/activations`` for the residual stream after every layer at
every position of a new prompt of 512 tokens: ours (``pythia_bento.client``), and one that does no
more than read the bytes into memory that it has (``http.client``). A request is timed from its
first byte to the last of its answer, ours to its arrays; beside them the same prompt's scores
(``/score``), which the service computes either way. 60 ms are wanted of pythia-1b on a GPU, client
and service on the same machine. ``server_cpu_ms`` is processor time of the service's processes.

``--instant`` leaves out what a device computes (``bench.serving.instant``): what remains is the way
from the memory of captures to the client.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from typing import Any, TypeVar

from bench.common.options import parser_of
from bench.gpu import harness
from bench.serving.serve import INSTANT, settings_of, vocabulary_of
from bench.serving.server import HOST, Server, serve
from pythia_bento.client import Client

SITE = "blocks.*.hook_resid_post"
WANTED_MS = 60.0
TIMEOUT = 120.0
Answer = TypeVar("Answer")
Ask = Callable[[list[int]], tuple[float, int]]
"""Asks about a prompt: seconds, and bytes of the answer."""


def main() -> None:
    """Measure, print, write."""
    parser = parser_of("bench.serving.inside", __doc__)
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--length", type=int, default=512, help="of the prompt, in tokens")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--instant", action="store_true", help="a device that computes nothing")
    parser.add_argument("--out", help="a file for the results")
    parser.set_defaults(clients=1)
    options = parser.parse_args()
    settings = settings_of(options)
    vocabulary = vocabulary_of(settings)
    with serve(settings, INSTANT if options.instant else "service:Pythia") as server:
        rows = _measure(server, vocabulary, options.length, options.rounds)
    for row in rows:
        print(row, flush=True)
    if options.out:
        harness.write(options.out, rows, model=options.model, prompt=options.length)


def _measure(server: Server, vocabulary: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """By turns, each with a prompt of its own; the first of each warms up."""
    draw, plain = random.Random(0), Plain(server)
    with Client(server.url, timeout=TIMEOUT) as client:
        kinds: dict[str, Ask] = {
            "scores": plain.scores,
            "residual streams": plain.activations,
            "residual streams, our client": lambda prompt: _ours(client, prompt),
        }
        found: dict[str, list[tuple[float, int, float]]] = {kind: [] for kind in kinds}
        for round in range(rounds + 1):
            for kind, ask in kinds.items():
                prompt = [draw.randint(1, vocabulary) for _ in range(length)]
                before = server.cpu_seconds()
                seconds, size = ask(prompt)
                if round:
                    found[kind].append((seconds, size, server.cpu_seconds() - before))
    plain.close()
    return [_row(kind, times) for kind, times in found.items()]


class Plain:
    """A client that only reads."""

    def __init__(self, server: Server) -> None:
        self._http = HTTPConnection(HOST, server.port, timeout=TIMEOUT)
        self._memory = bytearray()

    def scores(self, prompt: list[int]) -> tuple[float, int]:
        """Of all tokens."""
        seconds, answer = self._ask("/score", {"items": [{"prompt": prompt}]}, self._whole)
        if "error" in json.loads(answer)[0]:
            raise RuntimeError("the prompt was not scored")
        return seconds, len(answer)

    def activations(self, prompt: list[int]) -> tuple[float, int]:
        """``SITE`` of all layers and positions."""
        fields = {"prompts": [prompt], "capture": [{"site": SITE}]}
        return self._ask("/v1/activations", fields, self._into_memory)

    def _ask(
        self, path: str, fields: dict[str, Any], read: Callable[[HTTPResponse], Answer]
    ) -> tuple[float, Answer]:
        body = json.dumps(fields)
        begun = time.perf_counter()
        self._http.request("POST", path, body)
        answer = self._http.getresponse()
        found = read(answer)
        seconds = time.perf_counter() - begun
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}")
        return seconds, found

    @staticmethod
    def _whole(answer: HTTPResponse) -> bytes:
        """Scores come in pieces of a length that is not told before."""
        return answer.read()

    def _into_memory(self, answer: HTTPResponse) -> int:
        """Bytes, all of which are in memory that was there."""
        size, place = int(answer.headers["content-length"]), 0
        if size > len(self._memory):
            self._memory = bytearray(size)
        with memoryview(self._memory) as memory:
            while place < size and (count := answer.readinto(memory[place:size])):
                place += count
        if place < size:
            raise RuntimeError(f"{place} of {size} bytes came")
        answer.read()
        return size

    def close(self) -> None:
        """End the connection."""
        self._http.close()


def _ours(client: Client, prompt: list[int]) -> tuple[float, int]:
    begun = time.perf_counter()
    [run] = client.activations([prompt], capture=SITE)
    return time.perf_counter() - begun, sum(array.nbytes for array in run.values())


def _row(kind: str, found: list[tuple[float, int, float]]) -> dict[str, Any]:
    times, sizes, cpu = zip(*found, strict=True)
    return {
        "kind": f"{kind}, HTTP",
        "ms": round(statistics.median(times) * 1e3, 2),
        "p90_ms": round(statistics.quantiles(times, n=10)[-1] * 1e3, 2),
        "server_cpu_ms": round(statistics.mean(cpu) * 1e3, 2),
        "wanted": None if kind == "scores" else WANTED_MS,
        "bytes": sizes[0],
    }


if __name__ == "__main__":
    main()
