"""Clients in a process of their own, so that they cost the server nothing.

``python -m bench.serving.client`` reads a ``Job`` as a line of JSON, says "ready", waits for a
line, runs the job and prints a list of ``Timing``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

from bench.common.stats import Timing
from bench.serving.transports import TRANSPORTS, Connection, Prompts

try:
    from uvloop import run as run_loop
except ImportError:
    from asyncio import run as run_loop


@dataclass(frozen=True, slots=True)
class Job:
    """``clients`` connections, each with ``rounds`` requests one after another."""

    transport: str
    host: str
    port: int
    clients: int
    rounds: int
    prompt: int  # tokens
    new: int  # tokens; those that score generate none
    vocabulary: int  # prompts are drawn from the ids 1 to this
    seed: int
    texts: int = 1  # prompts in a request

    def shared(self, processes: int, **changes: int) -> list[Job]:
        """One for each process, with its part of the clients and a seed of its own."""
        whole, count = replace(self, **changes), min(processes, self.clients)
        return [
            replace(
                whole,
                clients=whole.clients // count + (index < whole.clients % count),
                seed=whole.seed + index,
            )
            for index in range(count)
        ]


async def run(job: Job, started: Callable[[], None] = lambda: None) -> list[Timing]:
    """Connect all clients, call ``started``, and run them."""
    connect = TRANSPORTS[job.transport]
    connections = [await connect(job.host, job.port) for _ in range(job.clients)]
    draw = random.Random(job.seed)

    def prompts() -> Prompts:
        ids = range(job.prompt)
        return [[draw.randint(1, job.vocabulary) for _ in ids] for _ in range(job.texts)]

    requests = [[prompts() for _ in range(job.rounds)] for _ in connections]
    await asyncio.to_thread(started)

    async def one(connection: Connection, requests: list[Prompts]) -> list[Timing]:
        return [await connection.ask(prompts, job.new) for prompts in requests]

    try:
        done = await asyncio.gather(*map(one, connections, requests))
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
