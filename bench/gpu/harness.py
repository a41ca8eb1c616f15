"""What the GPU benchmarks share: a random model in an engine, the limit, results as JSON."""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from bench.common import machine
from bench.common.random_model import RandomModel
from bench.common.shapes import tokenizer
from pythia_bento import catalog
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import MakeExecutor, make_executor
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create

DEVICE = torch.device("cuda")


def load_engine(
    name: str,
    max_batch: int,
    context: int,
    max_tokens: int,
    blocks: int = 0,
    make: MakeExecutor = make_executor,
    most_tokens: int | None = None,
) -> Engine:
    """An engine over random weights; ``blocks`` 0 gives every sequence its whole context.

    ``most_tokens`` is ``max_tokens_per_prompt_step``.
    """
    gc.collect()
    torch.cuda.empty_cache()
    config = catalog.config(name)
    kernels = create("triton", config, DEVICE)
    with torch.inference_mode():
        model = GPTNeoX(RandomModel(config, DEVICE), kernels)
    wanted = blocks or (max_batch + 1) * -(-context // kernels.block_size)
    free = torch.cuda.mem_get_info()[0] - (6 << 30)
    count = min(wanted, free // kernels.kv_bytes_per_block())
    sizes = EngineConfig(count, max_batch, max_tokens, most_tokens)
    known = Tokenizer(tokenizer())
    return Engine(make(model, sizes, known.num_tokens, None), known)


def requests(batch: int, prompt: int, new: int, seed: int, **options: Any) -> list[Request]:
    """Requests with random prompts, greedy unless ``options`` of sampling say otherwise."""
    draw = random.Random(seed)
    params = SamplingParams(**{"max_tokens": new, "temperature": 0.0, "ignore_eos": True} | options)
    return [
        Request(f"{seed}-{i}", tuple(draw.randrange(1, 50000) for _ in range(prompt)), params)
        for i in range(batch)
    ]


def copy_gb_per_s() -> float:
    """Bytes read and written by a large device-to-device copy."""
    source = torch.randint(0, 255, (2 << 30,), dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best = max(best, 2 * source.nbytes / start.elapsed_time(end) / 1e6)
    return best


def step_bytes(config: ModelConfig, batch: int, context: float, weight_bytes: int = 1) -> float:
    """Bytes a decode step must read: linears, fp16 head, fp16 keys and values."""
    hidden, inner = config.hidden_size, config.intermediate_size
    linears = config.num_layers * hidden * (4 * hidden + 2 * inner) * weight_bytes
    cache = batch * context * config.num_layers * hidden * 4
    return linears + config.vocab_size * hidden * 2 + cache


def write(path: str, results: list[dict[str, Any]], **more: Any) -> None:
    """The JSON format of ``bench/results``."""
    record = {
        "machine": machine.describe(),
        "versions": machine.versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": "python -m " + " ".join([sys.modules["__main__"].__spec__.name, *_options()]),
        **more,
        "results": results,
    }
    Path(path).write_text(json.dumps(record, indent=1) + "\n")


def _options() -> list[str]:
    """Of the command line, but for files: a path of one machine says nothing to others."""
    options = list(sys.argv[1:])
    for name in ("--out", "--lock", "--other"):
        if name in options:
            place = options.index(name)
            options[place : place + 2] = []
    return options


def arguments(out: str, batches: str) -> argparse.ArgumentParser:
    """Options that all of them have."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="pythia-1b")
    parser.add_argument("--batches", default=batches)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--out", default=f"bench/results/{out}")
    return parser


def now() -> float:
    """Seconds, after the device is done where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
