"""The service beside its engine, under load: ``python -m bench.serving.serve``.

Measures the engine alone, then starts ``bentoml serve`` over the same checkpoint and sends the same
load through HTTP: 64 clients, each asking for greedy answers one after another, without streaming
and with. Clients run in processes of their own; so does the engine of a service on a GPU, and
``--one-process`` measures the service without that too. pythia-1b and the like are random
checkpoints, written once to the temporary directory; ``--model`` may also be whatever PYTHIA_MODEL
may be.

At the end, what HTTP and gRPC add to a single small question (``bench.serving.overhead``).

On a processor: ``python -m bench.serving.serve --device cpu --model bundled --rounds 1``. What the
serving path alone can do, over a device that computes nothing: ``python -m bench.serving.serve
--instant``, where BENCH_STEP_US=1280 stands for 50,000 tokens/s of 64 sequences.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.common.options import parser_of
from bench.common.random_model import SUITE, write_int8
from bench.common.stats import summary
from bench.gpu import harness
from bench.serving import overhead
from bench.serving.client import Job, run_all
from bench.serving.closed_loop import Load
from bench.serving.server import HOST, Server, serve
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.engine.tokenizer import Tokenizer

CACHE = Path(tempfile.gettempdir()) / "pythia-bento-bench"
TARGETS = {"http": 0.8, "http-stream": 0.6}  # shares of the engine's tokens/s
INSTANT = "bench.serving.instant:Pythia"
ENGINE = "engine alone"
ONE_PROCESS = ", one process"


def main() -> None:
    options = _options()
    settings = settings_of(options)
    load = Load(options.clients, options.rounds, options.prompt, options.new)
    rows = [_engine(options, settings, load)]
    _show(rows[0])
    target = INSTANT if options.instant else "service:Pythia"
    vocabulary = vocabulary_of(settings)
    shape = {"clients": load.clients, "prompt": load.prompt, "new": load.new}
    for suffix, environment in _servers(options):
        with serve(settings | environment, target) as server:
            for transport in options.transports.split(","):
                row = _through(transport, server, options, load, vocabulary)
                rows.append(row | {"backend": transport + suffix})
                compare(rows)
                _show(rows[-1])
                harness.write(options.out, rows, **shape)
    if options.overhead_rounds:  # of a model so small that the transports are what takes the time
        single = overhead.run("bundled", options.overhead_rounds)
        print(overhead.table(single))
        print(overhead.goals(single))
        harness.write(options.out, rows, **shape, overhead=[asdict(result) for result in single])


def _options() -> argparse.Namespace:
    parser = parser_of("bench.serving.serve", __doc__)
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=16, help="requests of each client")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--processes", type=int, default=4, help="that the clients share")
    parser.add_argument("--transports", default=",".join(TARGETS), help=", ".join(TARGETS))
    parser.add_argument(
        "--overhead-rounds",
        type=int,
        default=overhead.ROUNDS,
        help="of bench.serving.overhead; 0: none",
    )
    parser.add_argument(
        "--one-process", action="store_true", help="then again with the engine in the server's"
    )
    parser.add_argument("--instant", action="store_true", help="a device that computes nothing")
    parser.add_argument("--out", default="bench/results/h200-serve.json")
    options = parser.parse_args()
    if options.instant:
        options.model, options.device = "bundled", "cpu"
    return options


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """Environment of engine and service: what PYTHIA_ variables say, and the options."""
    model = options.model
    if model in SUITE:
        directory = CACHE / f"{model}-int8"
        write_int8(model, directory, torch.device(options.device))
        model = str(directory)
    most = os.environ.get("PYTHIA_MAX_BATCH_SIZE", str(max(64, options.clients)))
    return {
        "PYTHIA_MODEL": model,
        "PYTHIA_DEVICE": options.device,
        "PYTHIA_MAX_BATCH_SIZE": most,
    }


def vocabulary_of(settings: Mapping[str, str]) -> int:
    """The last token id that is drawn for prompts."""
    checkpoint = load_checkpoint(settings["PYTHIA_MODEL"])
    return Tokenizer.from_file(checkpoint.tokenizer_path).num_tokens - 1


def _servers(options: argparse.Namespace) -> list[tuple[str, dict[str, str]]]:
    """What each server is called beside its transport, and its settings."""
    servers: list[tuple[str, dict[str, str]]] = [("", {})]
    if options.one_process:
        servers.append((ONE_PROCESS, {"PYTHIA_ENGINE_PROCESS": "false"}))
    return servers


def _engine(options: argparse.Namespace, settings: Mapping[str, str], load: Load) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.serving.closed_loop", json.dumps(asdict(load))]
    command += ["--instant"] * options.instant
    done = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    return {"model": options.model, "backend": ENGINE, "batch": load.clients, **figures}


def _through(
    transport: str, server: Server, options: argparse.Namespace, load: Load, vocabulary: int
) -> dict[str, Any]:
    shape = (load.clients, load.rounds, load.prompt, load.new, vocabulary)
    job = Job(transport, HOST, server.port, *shape, seed=sum(map(ord, transport)))
    row = {"model": options.model, "backend": transport, "batch": load.clients}
    return row | measured(server, job, options.processes)


def measured(server: Server, job: Job, processes: int) -> dict[str, Any]:
    """Figures of a job that ``processes`` share, after a round that warms up."""
    run_all(job.shared(processes, rounds=1, seed=10_000))
    before = server.cpu_seconds()
    row = summary(run_all(job.shared(processes)))
    used = server.cpu_seconds() - before
    return row | {"server_cpu_us_per_token": round(used / row["tokens"] * 1e6, 3)}


def compare(rows: list[dict[str, Any]]) -> None:
    """Add to each row its share of the engine's rates and whether the target was reached."""
    engine = next((row for row in rows if row["backend"] == ENGINE), None)
    for row in rows:
        if engine is None or row is engine:
            continue
        row["share_of_engine"] = round(row["tokens_per_s"] / engine["tokens_per_s"], 3)
        if engine["decode_tokens_per_s"]:
            share = row["tokens_per_s"] / engine["decode_tokens_per_s"]
            row["share_of_decode"] = round(share, 3)
        if (wanted := TARGETS.get(row["backend"].removesuffix(ONE_PROCESS))) is not None:
            row["target_share"] = wanted
            row["reached"] = row["share_of_engine"] >= wanted


def _show(row: dict[str, Any]) -> None:
    parts = [f"{row['model']:12} {row['backend']:14} {row['batch']:4} clients"]
    parts.append(f"{row['tokens_per_s']:10.1f} tokens/s")
    if "share_of_engine" in row:
        parts.append(f"{row['share_of_engine']:.0%} of the engine")
    if "reached" in row:
        verdict = "reached" if row["reached"] else "MISSED"
        parts.append(f"(wanted {row['target_share']:.0%}: {verdict})")
    if "server_cpu_us_per_token" in row:
        parts.append(f"{row['server_cpu_us_per_token']} us of processor a token")
    print(" ".join(parts))
    for name in ("first_token_ms", "gap_ms", "token_ms"):
        if row.get(name):
            print(f"  {name:16}", "  ".join(f"{k} {v}" for k, v in row[name].items()))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
