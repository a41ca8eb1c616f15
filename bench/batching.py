"""What adaptive batching gains over HTTP: ``python -m bench.batching``.

Starts the service as a user would (``bentoml serve``), sends it the same requests one after
another and then all at once, and prints the ratio of the times. Each request asks for 64 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from bench import machine

ROOT = Path(__file__).parents[1]
REQUESTS = 16
TOKENS = 64
GOAL = 0.4
START_SECONDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.batching", description=__doc__)
    parser.add_argument("--model", default="bundled", help="as PYTHIA_MODEL; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with _server(options.model) as url:
        sequential, concurrent = asyncio.run(_measure(url, options.rounds))
    ratio = statistics.median(concurrent) / statistics.median(sequential)
    record = {
        "machine": machine.describe(),
        "versions": machine.versions(),
        "command": " ".join(["python -m bench.batching", *sys.argv[1:]]),
        "sequential_s": sequential,
        "concurrent_s": concurrent,
        "ratio": round(ratio, 3),
    }
    print(json.dumps(record, indent=1))
    verdict = "reached" if ratio <= GOAL else "MISSED"
    print(f"{verdict}: {REQUESTS} at once take {ratio:.0%} of one by one, wanted {GOAL:.0%}")


@contextmanager
def _server(model: str) -> Iterator[str]:
    """``bentoml serve`` on a free port, ready; ended on the way out."""
    [port] = free_ports(1)
    command = [
        *(sys.executable, "-m", "bentoml", "serve", "service:Pythia"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    environment = os.environ | {
        **{"PYTHIA_MODEL": model, "BENTOML_DO_NOT_TRACK": "True", "PYTHIA_GRPC_PORT": "0"}
    }
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the service did not become ready")


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
