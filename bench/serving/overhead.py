"""What a transport adds to the engine's own time: ``python -m bench.serving.overhead``.

Starts the service as a user would (``bentoml serve``), and asks it and an engine in this process
the same small questions, one at a time and by turns of some. A transport's overhead is its median
less the engine's. The engine is asked through a ``PythiaRunner``, as the service asks its own: its
time has the way from the event loop to the engine's thread and back in it. The event loop is the
one that the service has, uvloop where it is installed.

"no-op" is a ``grpc.aio`` server that answers the same calls at once (``bench.serving.noop_grpc``):
there is no engine behind it, so all of its time is overhead.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import httpx

from bench.common import machine
from bench.serving.client import run_loop
from bench.serving.noop_grpc import noop_server
from bench.serving.server import serve
from pythia_bento.engine.params import Request, SamplingParams, new_request_id, score_request
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings

ENGINE, GRPC, HTTP, NOOP = "engine", "grpc", "http", "no-op"
GOAL_MS = 1.0  # gRPC over the engine's own time, unary
PROMPT_TOKENS = 8
ROUNDS, TURN = 400, 100

Question = Callable[[list[int]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians of one transport at one task, in milliseconds."""

    task: str  # "score": unary; "generate": one token, over gRPC a stream of one message
    transport: str
    p50_ms: float
    p90_ms: float
    over_engine_ms: float  # p50 less the engine's; of the no-op, which has none, all of it


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving.overhead", description=__doc__)
    parser.add_argument("--model", default="bundled", help="as PYTHIA_MODEL; default %(default)s")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default %(default)s")
    parser.add_argument("--output", type=Path, help="write the results there as JSON")
    options = parser.parse_args()
    results = run(options.model, options.rounds)
    print(table(results))
    print(goals(results))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(_record(results), indent=1) + "\n")
        print(f"written to {options.output}")


def run(model: str = "bundled", rounds: int = ROUNDS) -> list[Overhead]:
    """Serve a model and measure; some seconds for a small one."""
    settings = Settings(model=model)
    with (
        serve({"PYTHIA_MODEL": model}) as server,
        noop_server() as noop,
        PythiaRunner.load(settings) as runner,
    ):
        return run_loop(measure(server.url, server.grpc_target, noop, runner, rounds))


async def measure(
    url: str, target: str, noop: str, runner: PythiaRunner, rounds: int
) -> list[Overhead]:
    """Ask a server, one that does nothing, and a runner of the same model by turns."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as http,
        grpc.aio.insecure_channel(target) as channel,
        grpc.aio.insecure_channel(noop) as noop_channel,
    ):
        results = []
        tasks = _tasks(http, PythiaStub(channel), PythiaStub(noop_channel), runner)
        for task, questions in tasks.items():
            seconds = await _by_turns(questions, rounds, runner.limits.num_tokens)
            results += [_overhead(task, name, seconds) for name in questions]
    return results


def table(results: list[Overhead]) -> str:
    """One line a task and transport."""
    lines = [f"{'task':10} {'transport':10} {'p50 ms':>8} {'p90 ms':>8} {'over engine':>12}"]
    lines += [
        f"{r.task:10} {r.transport:10} {r.p50_ms:8.3f} {r.p90_ms:8.3f} {r.over_engine_ms:12.3f}"
        for r in results
    ]
    return "\n".join(lines)


def goals(results: list[Overhead]) -> str:
    """What was wanted of each task, and whether it was reached."""
    lines = ["goals"]
    for task in dict.fromkeys(r.task for r in results):
        over = {r.transport: r.over_engine_ms for r in results if r.task == task}
        reached = over[GRPC] < min(GOAL_MS, over[HTTP])
        lines.append(
            f"  {'reached' if reached else 'MISSED '} {task}: gRPC {over[GRPC]:.2f} ms over the "
            f"engine, wanted below {GOAL_MS:g} and below HTTP's {over[HTTP]:.2f}; "
            f"a server that does nothing takes {over[NOOP]:.2f}"
        )
    return "\n".join(lines)


def _tasks(
    http: httpx.AsyncClient, stub: Any, noop: Any, runner: PythiaRunner
) -> dict[str, dict[str, Question]]:
    async def score_engine(ids: list[int]) -> None:
        await runner.score([score_request(tuple(ids))])

    async def score_http(ids: list[int]) -> None:
        (await http.post("/score", json={"items": [{"prompt": ids}]})).raise_for_status()

    async def generate_engine(ids: list[int]) -> None:
        params = SamplingParams(max_tokens=1, temperature=0)
        await runner.complete([Request(new_request_id(), tuple(ids), params)])

    async def generate_http(ids: list[int]) -> None:
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0}
        (await http.post("/generate", json=body)).raise_for_status()

    score, generate = _grpc_score, _grpc_generate
    return {
        "score": {ENGINE: score_engine, GRPC: score(stub), HTTP: score_http, NOOP: score(noop)},
        "generate": {
            ENGINE: generate_engine,
            GRPC: generate(stub),
            HTTP: generate_http,
            NOOP: generate(noop),
        },
    }


def _grpc_score(stub: Any) -> Question:
    async def score(ids: list[int]) -> None:
        item = pb.ScoreItem(prompt={"tokens": {"ids": ids}})
        await stub.Score(pb.ScoreRequest(items=[item]))

    return score


def _grpc_generate(stub: Any) -> Question:
    async def generate(ids: list[int]) -> None:
        sampling = pb.Sampling(max_tokens=1, temperature=0)
        request = pb.GenerateRequest(prompt={"tokens": {"ids": ids}}, sampling=sampling)
        async for _ in stub.Generate(request):
            pass

    return generate


async def _by_turns(
    questions: dict[str, Question], rounds: int, vocabulary: int
) -> dict[str, list[float]]:
    """Seconds of each answer; prompts differ, so that no cache helps, and are the same for all.

    Turns are long: the engine's threads go on looking for work for a moment, and the first answers
    of a turn find the caches full of what the other process used.
    """
    seconds: dict[str, list[float]] = {name: [] for name in questions}
    numbers = random.Random(0)
    length = min(TURN, rounds)
    for turn in range(1 + -(-rounds // length)):
        prompts = [
            [numbers.randrange(vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(length)
        ]
        for name, question in questions.items():
            found = [await _seconds(question, ids) for ids in prompts]
            seconds[name] += found if turn else []  # the first turn warms up
    return seconds


async def _seconds(question: Question, ids: list[int]) -> float:
    start = time.perf_counter()
    await question(ids)
    return time.perf_counter() - start


def _overhead(task: str, transport: str, seconds: dict[str, list[float]]) -> Overhead:
    own = seconds[transport]
    p50, engine = statistics.median(own), statistics.median(seconds[ENGINE])
    p90 = statistics.quantiles(own, n=10)[-1]
    over = p50 if transport == NOOP else p50 - engine
    times = (round(value * 1e3, 3) for value in (p50, p90, over))
    return Overhead(task, transport, *times)


def _record(results: list[Overhead]) -> dict[str, Any]:
    return {
        "machine": machine.describe(),
        "versions": machine.versions((*machine.PACKAGES, "grpcio", "protobuf")),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.serving.overhead", *sys.argv[1:]]),
        "results": [asdict(result) for result in results],
    }


if __name__ == "__main__":
    main()
