"""What people run on a GPU: scoring, mixed requests, sampling options, long prompts and contexts.

``python -m bench.workloads [--models pythia-70m,pythia-410m,pythia-1b] [--only score,mixed,...]
[--peers] [--vllm FOLDER]``: random weights and prompts, through the engine alone. Scoring is of all
models, the rest of the last one. ``--peers`` scores with transformers and bitsandbytes in the same
run; ``--vllm`` runs vLLM, whose packages are in that folder, over the same loads. Several processes
with one ``--lock FILE`` load their models together and measure one after the other.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import itertools
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from bench.gpu import harness
from bench.gpu.decode import decode
from bench.gpu.latency import set_budget
from bench.peers import vllm
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import Request, SamplingParams, score_request

OURS = "pythia-bento w8a16"
ROUNDS = 3
MOST_ROWS = 256  # sequences in a step
AHEAD = 256  # texts to score that the engine has at a time, as from clients of that many
DEFAULT = 2048, 8192  # tokens in a step, and in one that nobody waits for
BUDGETS = (DEFAULT, (2048, 2048), (8192, 8192))  # the same
MIXED = ((64, 2048), (256, 1024), (256, 2048), (256, 4096))  # sequences and tokens in a step
CACHE_TOKENS = 300_000
TEXTS = ((1024, 128), (256, 512))  # to score: how many, of how many tokens
PEER_TOKENS = 256 * 128  # of a batch of transformers'
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "top_p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top_k 50": {"temperature": 0.8, "top_k": 50},
    "min_p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "logprobs 5": {"logprobs": 5},
    "repetition_penalty 1.1": {"repetition_penalty": 1.1},
}
BATCHES = (1, 32, 128)
NEW = 64  # tokens of an answer with options
PROMPTS = ((128, 128), (32, 1024), (128, 1024), (32, 1900))
CONTEXTS = ((1, 1024), (32, 1024), (128, 1024), (32, 1900))
CONTEXT_NEW = 128  # tokens of an answer, which has the named context half-way

Row = dict[str, Any]


def seconds(engine: Engine, asked: list[Request], ahead: int = 1 << 30) -> float:
    """From the first request to the last answer; the engine is given ``ahead`` at a time."""
    start = harness.now()
    waiting, open = iter(asked), 0
    while True:
        for request in itertools.islice(waiting, ahead - open):
            engine.add_request(request)
            open += 1
        if not open:
            return harness.now() - start
        open -= sum(output.finish_reason is not None for output in engine.step())


_seeds = itertools.count()  # prompts that come again would be found in the prefix cache


def typical(run: Callable[[int], float]) -> float:
    """The median of some rounds, after one that warms up."""
    run(next(_seeds))
    return statistics.median(run(next(_seeds)) for _ in range(ROUNDS))


def score(engine: Engine) -> Iterator[Row]:
    """Log-probabilities of every token of many texts, by tokens a step."""
    for texts, length in TEXTS:
        for budget in BUDGETS[:2]:
            set_budget(engine, *budget)
            took = typical(
                lambda seed, n=texts, k=length: seconds(engine, _texts(n, k, seed), AHEAD)
            )
            shape = {"texts": texts, "prompt": length, **_budgets(*budget)}
            yield row("score", took, texts * length, **shape)


def _budgets(tokens: int, most: int) -> Row:
    return {"max_tokens_per_step": tokens, "max_tokens_per_prompt_step": most}


def _texts(count: int, length: int, seed: int) -> list[Request]:
    prompts = harness.requests(count, length, 0, seed)
    return [score_request(request.prompt, 0) for request in prompts]


def mixed(engine: Engine) -> Iterator[Row]:
    """Many requests at once, all lengths drawn, greedy: generated tokens."""
    for rows, budget in MIXED:
        engine._scheduler.max_seqs = rows
        set_budget(engine, budget, DEFAULT[1])
        took = typical(lambda _: seconds(engine, mixture()))
        yield row("mixed", took, generated(), batch=rows, max_tokens_per_step=budget)
    engine._scheduler.max_seqs = MOST_ROWS


def generated() -> int:
    """Tokens that every ``mixture`` generates."""
    return sum(request.params.max_tokens for request in mixture())


def mixture(count: int = 1000) -> list[Request]:
    """Greedy requests with prompts and answers of always the same lengths, and other tokens."""
    sizes, draw = random.Random(5), random.Random(next(_seeds))  # always of the same lengths
    asked = []
    for i in range(count):
        prompt = tuple(draw.randrange(1, 50000) for _ in range(sizes.randint(16, 512)))
        params = SamplingParams(max_tokens=sizes.randint(16, 256), temperature=0, ignore_eos=True)
        asked.append(Request(str(i), prompt, params))
    return asked


def options(engine: Engine) -> Iterator[Row]:
    """Decoding with options of sampling, after all first tokens."""
    set_budget(engine, *BUDGETS[-1])
    for name, fields in OPTIONS.items():
        for batch in BATCHES:
            took = typical(
                lambda seed, b=batch, f=fields: decode(engine, b, 128, NEW, seed, **f)[1]
            )
            yield row("options", took, batch * (NEW - 1), batch=batch, prompt=128, options=name)


def prefill(engine: Engine) -> Iterator[Row]:
    """Prompts to their first tokens."""
    for batch, prompt in PROMPTS:
        for budget in BUDGETS:
            set_budget(engine, *budget)
            took = typical(
                lambda seed, n=batch, k=prompt: seconds(engine, harness.requests(n, k, 1, seed))
            )
            shape = {"batch": batch, "prompt": prompt, **_budgets(*budget)}
            yield row("prefill", took, batch * prompt, **shape)


def context(engine: Engine) -> Iterator[Row]:
    """Decoding with long contexts, which have the named length half-way."""
    set_budget(engine, *BUDGETS[-1])
    for batch, length in CONTEXTS:
        prompt = length - CONTEXT_NEW // 2
        took = typical(lambda seed, b=batch, p=prompt: decode(engine, b, p, CONTEXT_NEW, seed)[1])
        yield row("context", took, batch * (CONTEXT_NEW - 1), batch=batch, context=length)


WORKLOADS = {f.__name__: f for f in (score, mixed, options, prefill, context)}


def peers(name: str) -> Iterator[Row]:
    """The same texts scored by transformers."""
    from bench.gpu.peers import models, score_seconds

    for backend, model, _ in models(name):
        for texts, length in TEXTS:
            ids = torch.randint(1, 50000, (texts, length), device="cuda")
            batch = PEER_TOKENS // length
            took = typical(lambda seed, m=model, i=ids, b=batch: score_seconds(m, i, b))
            shape = {"texts": texts, "prompt": length, "batch": batch}
            yield row("score", took, texts * length, **shape) | {"backend": backend}


def row(workload: str, took: float, tokens: int, **shape: Any) -> Row:
    """A result of ours; those of others name their backend."""
    rate = {"seconds": round(took, 4), "tokens_per_s": round(tokens / took, 1)}
    return {"workload": workload, "backend": OURS, **shape, **rate}


def main() -> None:
    """Measure, print, write."""
    parser = harness.arguments("h200-workloads.json", "")
    parser.set_defaults(models="pythia-70m,pythia-410m,pythia-1b")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="some of the workloads")
    parser.add_argument("--peers", action="store_true", help="transformers and bitsandbytes too")
    parser.add_argument("--vllm", type=Path, metavar="FOLDER", help="where its packages are")
    parser.add_argument("--lock", default=os.devnull, help="held while this process measures")
    args = parser.parse_args()
    with open(args.lock, "a") as lock:
        measure(args, lock)


def measure(args: argparse.Namespace, lock: TextIO) -> None:
    """All that was asked for; once a model is loaded, with the lock."""
    names, rows = args.models.split(","), list[Row]()
    for name in names:
        tokens, most = DEFAULT
        blocks = _blocks(name)
        engine = harness.load_engine(name, MOST_ROWS, 2048, tokens, blocks, most_tokens=most)
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = [w for w in args.only.split(",") if w == "score" or name == names[-1]]
        found = [WORKLOADS[workload](engine) for workload in wanted]
        others = _others(args, name, wanted, engine)
        for row in itertools.chain(*found, others):
            rows.append({"model": name, **row})
            print(rows[-1], flush=True)
            harness.write(args.out, rows)


def _others(
    args: argparse.Namespace, name: str, wanted: Sequence[str], engine: Engine
) -> Iterator[Row]:
    """The same loads by other engines, once ours has given its memory back."""
    engine.close()
    gc.collect()
    torch.cuda.empty_cache()
    if args.peers and "score" in wanted:
        yield from peers(name)
        torch.cuda.empty_cache()
    if args.vllm:
        yield from vllm.rows(args.vllm, name, wanted)


def _blocks(name: str) -> int:
    from bench.gpu.invariance import model_block

    return CACHE_TOKENS // model_block(name)


if __name__ == "__main__":
    sys.exit(main())
