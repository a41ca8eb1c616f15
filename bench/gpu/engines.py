"""Engines of the benchmarks that run on a GPU and, for trying them, on a processor."""

from __future__ import annotations

import argparse

from bench.common.random_model import SUITE
from bench.gpu import harness
from pythia_bento.engine.engine import Engine
from pythia_bento.executor import MakeExecutor, make_executor


def add_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """``--model``, ``--device`` and ``--out``."""
    parser.add_argument("--model", default="pythia-1b", help="a size of the suite, or PYTHIA_MODEL")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", default=f"bench/results/{out}")


def load(
    model: str,
    device: str,
    max_batch: int,
    context: int,
    max_tokens: int,
    make: MakeExecutor = make_executor,
) -> Engine:
    """Random weights where ``model`` is a size and the device a GPU, else what would be served."""
    if device == "cuda" and model in SUITE:
        return harness.load_engine(model, max_batch, context, max_tokens, make=make)
    from bench.common.alone import load_alone
    from pythia_bento.settings import load_settings

    sizes = {"max_batch_size": max_batch, "max_tokens_per_step": max_tokens}
    settings = load_settings({"model": model, "device": device, **sizes})
    return load_alone(settings, make)[0]
