"""Scores of texts through the service, beside its engine: ``python -m bench.serving.scoring``.

32 clients send requests of 32 texts each, one after another: to ``/score``, to ``/v1/completions``
with ``echo`` and ``logprobs`` as lm-eval does, and to gRPC's ``Score``. The engine alone scores as
many texts at a time. ``--instant`` is as in ``bench.serving.serve``: what the service alone can do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from typing import Any

from bench.common.alone import load_alone
from bench.common.options import parser_of
from bench.gpu import harness
from bench.serving.client import Job
from bench.serving.serve import ENGINE, INSTANT, measured, settings_of, vocabulary_of
from bench.serving.server import HOST, Server, serve
from bench.serving.transports import GRPC_PORT
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import score_request

TRANSPORTS = ("score", "echo", "grpc-score")
TARGET = 0.7  # share of the engine's tokens/s


def main() -> None:
    options = _options()
    if options.alone:
        print(json.dumps(_alone(options)))
        return
    settings = settings_of(options)
    rows = [_engine(options, settings)]
    _show(rows[0])
    shape = {"clients": options.clients, "texts": options.texts, "length": options.length}
    with serve(settings, INSTANT if options.instant else "service:Pythia") as server:
        vocabulary = vocabulary_of(settings)
        for transport in options.transports.split(","):
            row = _through(transport, server, options, vocabulary)
            row["share_of_engine"] = round(row["tokens_per_s"] / rows[0]["tokens_per_s"], 3)
            rows.append(row)
            _show(row)
            harness.write(options.out, rows, **shape)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.serving.scoring", __doc__)
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--texts", type=int, default=32, help="in a request")
    parser.add_argument("--length", type=int, default=128, help="of a text, in tokens")
    parser.add_argument("--rounds", type=int, default=4, help="requests of each client")
    parser.add_argument("--processes", type=int, default=4, help="that the clients share")
    parser.add_argument("--transports", default=",".join(TRANSPORTS))
    parser.add_argument("--instant", action="store_true", help="a device that computes nothing")
    parser.add_argument("--alone", action="store_true", help="only the engine, in this process")
    parser.add_argument("--out", default="bench/results/h200-scoring.json")
    options = parser.parse_args()
    if options.instant:
        options.model, options.device = "bundled", "cpu"
    return options


def _engine(options: argparse.Namespace, settings: dict[str, str]) -> dict[str, Any]:
    """A process of its own, so that the device is free again afterwards."""
    command = [sys.executable, "-m", "bench.serving.scoring", *sys.argv[1:], "--alone"]
    done = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"model": options.model, "backend": ENGINE, **figures}


def _alone(options: argparse.Namespace) -> dict[str, Any]:
    from pythia_bento.settings import load_settings

    if options.instant:
        import bench.serving.instant  # noqa: F401 - which takes the place of what loads
    engine, _ = load_alone(load_settings())
    engine.generate(_texts(engine, options, 0, options.texts))
    texts = _texts(engine, options, 1, options.clients * options.texts * options.rounds)
    begun = time.perf_counter()
    answers = engine.generate(texts)
    seconds = time.perf_counter() - begun
    if any(answer.prompt_logprobs is None for [answer] in answers):
        raise RuntimeError("a text has no score")
    tokens = len(texts) * options.length
    return {"tokens_per_s": round(tokens / seconds, 1), "tokens": tokens, "seconds": seconds}


def _texts(engine: Engine, options: argparse.Namespace, seed: int, count: int) -> list[Any]:
    draw, most = random.Random(seed), engine.tokenizer.num_tokens - 1
    ids = range(options.length)
    return [score_request(tuple(draw.randint(1, most) for _ in ids)) for _ in range(count)]


def _through(
    transport: str, server: Server, options: argparse.Namespace, vocabulary: int
) -> dict[str, Any]:
    port = server.grpc_port if transport in GRPC_PORT else server.port
    shape = (options.clients, options.rounds, options.length, 0, vocabulary)
    job = Job(transport, HOST, port, *shape, sum(map(ord, transport)), options.texts)
    row = {"model": options.model, "backend": transport}
    return row | measured(server, job, options.processes) | {"target_share": TARGET}


def _show(row: dict[str, Any]) -> None:
    parts = [f"{row['model']:12} {row['backend']:14} {row['tokens_per_s']:12,.0f} tokens/s"]
    if "share_of_engine" in row:
        parts.append(f"{row['share_of_engine']:.0%} of the engine (wanted {TARGET:.0%})")
        parts.append(f"{row['server_cpu_us_per_token']} us of processor a token")
        parts.append(f"answers {row['answer_ms']} ms")
    print(" ".join(parts), flush=True)


if __name__ == "__main__":
    main()
