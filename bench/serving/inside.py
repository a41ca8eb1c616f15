"""The inside of a pass through the service: ``python -m bench.serving.inside``.

One client after the other asks ``/v1/activations`` for the residual stream after every layer at
every position of a new prompt of 512 tokens. A request is timed from its first byte to the last of
its answer; beside it the same prompt's scores (``/score``), which the service computes either way.
60 ms are wanted of pythia-1b on a GPU, client and service on the same machine.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

import httpx

from bench.common.options import parser_of
from bench.gpu import harness
from bench.serving.serve import settings_of, vocabulary_of
from bench.serving.server import Server, serve

SITE = "blocks.*.hook_resid_post"
WANTED_MS = 60.0


def main() -> None:
    """Measure, print, write."""
    parser = parser_of("bench.serving.inside", __doc__)
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--length", type=int, default=512, help="of the prompt, in tokens")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", help="a file for the results")
    parser.set_defaults(clients=1)
    options = parser.parse_args()
    settings = settings_of(options)
    vocabulary = vocabulary_of(settings)
    with serve(settings) as server:
        rows = _measure(server, vocabulary, options.length, options.rounds)
    for row in rows:
        print(row, flush=True)
    if options.out:
        harness.write(options.out, rows, model=options.model, prompt=options.length)


def _measure(server: Server, vocabulary: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """By turns, each with a prompt of its own; the first of each warms up."""
    draw = random.Random(0)
    times: dict[str, list[float]] = {"scores": [], "residual streams": []}
    sizes: dict[str, int] = {}
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for round in range(rounds + 1):
            for kind, found in times.items():
                prompt = [draw.randint(1, vocabulary) for _ in range(length)]
                seconds, sizes[kind] = _answer(client, kind, prompt)
                found += [seconds] if round else []
    return [_row(kind, found, sizes[kind]) for kind, found in times.items()]


def _answer(client: httpx.Client, kind: str, prompt: list[int]) -> tuple[float, int]:
    """Seconds, and the answer's bytes."""
    body: dict[str, Any] = {"items": [{"text": prompt}]}
    path = "/score"
    if kind != "scores":
        path, body = "/v1/activations", {"prompts": [prompt], "capture": [{"site": SITE}]}
    begun = time.perf_counter()
    answer = client.post(path, json=body)
    seconds = time.perf_counter() - begun
    answer.raise_for_status()
    return seconds, len(answer.content)


def _row(kind: str, times: list[float], size: int) -> dict[str, Any]:
    wanted = None if kind == "scores" else WANTED_MS
    return {
        "kind": f"{kind}, HTTP",
        "ms": round(statistics.median(times) * 1e3, 2),
        "p90_ms": round(statistics.quantiles(times, n=10)[-1] * 1e3, 2),
        "wanted": wanted,
        "bytes": size,
    }


if __name__ == "__main__":
    main()
