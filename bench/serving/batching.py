"""What adaptive batching gains over HTTP: ``python -m bench.serving.batching``.

Starts the service as a user would (``bentoml serve``), sends it the same requests one after
another and then all at once, and prints the ratio of the times. Each request asks for 64 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time

import httpx

from bench.common import machine
from bench.serving.server import serve

REQUESTS = 16
TOKENS = 64
GOAL = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving.batching", description=__doc__)
    parser.add_argument("--model", default="bundled", help="as PYTHIA_MODEL; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with serve({"PYTHIA_MODEL": options.model}) as server:
        sequential, concurrent = asyncio.run(_measure(server.url, options.rounds))
    ratio = statistics.median(concurrent) / statistics.median(sequential)
    record = {
        "machine": machine.describe(),
        "versions": machine.versions(),
        "command": " ".join(["python -m bench.serving.batching", *sys.argv[1:]]),
        "sequential_s": sequential,
        "concurrent_s": concurrent,
        "ratio": round(ratio, 3),
    }
    print(json.dumps(record, indent=1))
    verdict = "reached" if ratio <= GOAL else "MISSED"
    print(f"{verdict}: {REQUESTS} at once take {ratio:.0%} of one by one, wanted {GOAL:.0%}")


async def _measure(url: str, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds one by one and all at once, by turns; prompts differ, so that no cache helps."""
    sequential, concurrent = [], []
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        await _complete(client, "warm up")
        for number in range(rounds):
            start = time.perf_counter()
            for index in range(REQUESTS):
                await _complete(client, f"{number} one by one {index}")
            middle = time.perf_counter()
            together = (
                _complete(client, f"{number} all at once {index}") for index in range(REQUESTS)
            )
            await asyncio.gather(*together)
            sequential.append(round(middle - start, 3))
            concurrent.append(round(time.perf_counter() - middle, 3))
    return sequential, concurrent


async def _complete(client: httpx.AsyncClient, prompt: str) -> None:
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    response = await client.post("/v1/completions", json=body)
    response.raise_for_status()
    used = response.json()["usage"]["completion_tokens"]
    if used != TOKENS:
        raise RuntimeError(f"an answer has {used} tokens, not {TOKENS}")


if __name__ == "__main__":
    main()
