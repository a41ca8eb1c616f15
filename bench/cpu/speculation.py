"""Tokens a second with ``PYTHIA_SPECULATE=ngram`` and without: ``python -m bench.cpu.speculation``.

What drafts bring is a matter of the text, so texts are given: what ``bundled`` writes, greedily and
at temperature 1, English that Python ships (the reference behind ``help()``), cut by the tokenizer
of ``bundled``, which knows few of its words, and the same where the answer quotes the prompt.
Models compute and choose as ever and then go on with the token of the text. Decode steps alone are
timed, with drafts and without in turn. First come the times of passes of some rows of a sequence.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from pydoc_data import topics
from typing import Any

import torch
from torch import Tensor

from bench.common import machine
from bench.common.options import parser_of
from bench.common.random_model import RandomModel
from pythia_bento import catalog
from pythia_bento.checkpoints.checkpoint import Checkpoint, find_checkpoint
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.sampling_row import SamplingRow

BATCHES = (1, 2, 4, 8)
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16)
PROMPT, NEW = 128, 96
Texts = list[list[int]]  # of PROMPT + NEW tokens
ENGLISH = ("exceptions", "objects", "import", "with", "naming", "class", "try", "comparisons")


class Reciting(GPTNeoX):
    """Chooses tokens, and takes those of its texts in their place: a row's seed says which one."""

    texts: Texts

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
        """See ``Kernels.sample``."""
        super().sample(logits, rows, num_tokens)
        return torch.tensor([self.texts[row.seed][row.position] for row in rows]).int()


def main() -> None:
    """Measure, print, write."""
    options = _options()
    bundled = find_checkpoint("bundled")
    tokenizer = Tokenizer.from_bytes(bundled.tokenizer, bundled.tokenizer_path)
    kinds = {
        "greedy": _written(bundled, tokenizer, 0.0),
        "temperature 1": _written(bundled, tokenizer, 1.0),
        "English": _english(tokenizer),
        "quoted": [(text[:PROMPT] * 3)[: PROMPT + NEW] for text in _english(tokenizer)],
    }
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in options.models:
        model = _model(name, bundled)
        rows.append({"model": name, "ms_by_rows": _passes(model)})
        print(rows[-1], flush=True)
        for kind, texts in kinds.items():
            model.texts = texts
            for batch in options.batches:
                row = _measured(model, tokenizer, batch, options.rounds)
                rows.append({"model": name, "text": kind, "batch": batch, **row})
                print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if options.out:
        found = {"machine": machine.describe(), "versions": machine.versions(), "results": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = parser_of("bench.cpu.speculation", __doc__)
    parser.add_argument("--models", nargs="+", default=("bundled", "pythia-70m"))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _model(name: str, bundled: Checkpoint) -> Reciting:
    """``bundled``, or random weights in the shape of another."""
    config = bundled.config if name == "bundled" else catalog.config(name)
    source = bundled.source if name == "bundled" else RandomModel(config, torch.device("cpu"))
    return Reciting(source, create("cpu", config, torch.device("cpu"), "w8a16"))


def _passes(model: GPTNeoX) -> dict[int, float]:
    """Milliseconds of a pass that chooses in so many rows of one sequence, the least of some."""
    kernels, first = model.kernels, PROMPT
    cache = kernels.allocate_cache(-(-(first + max(ROWS)) // kernels.block_size))
    table = torch.arange(cache.num_blocks).int()[None]
    found: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for rows in ROWS * 12:
        places, ends = torch.arange(first, first + rows).int(), torch.tensor([0, rows]).int()
        batch = ForwardBatch(places, places, places, ends, (ends[1:] + first).int(), table)
        begun = time.perf_counter()
        with torch.inference_mode():
            logits = model.logits(model.forward(batch, cache))
            chosen = [SamplingRow(position, 0.0) for position in range(first, first + rows)]
            kernels.sample(logits, chosen, kernels.config.vocab_size)
        found[rows].append((time.perf_counter() - begun) * 1e3)
    return {rows: round(min(times), 2) for rows, times in found.items()}


def _written(bundled: Checkpoint, tokenizer: Tokenizer, temperature: float) -> Texts:
    """By ``bundled`` itself, after beginnings of its stories."""
    names = ("Tom", "Anna", "Mia", "Ben", "Ruby", "Finn", "Leo", "Nora")
    model = GPTNeoX(bundled.source, create("cpu", bundled.config, torch.device("cpu"), "w8a16"))
    engine = _engine(model, tokenizer, speculates=False)
    texts = []
    for seed, name in enumerate(names):
        prompt = tuple(tokenizer.encode(f"Once upon a time there was a child named {name}."))
        new = PROMPT + NEW - len(prompt)
        params = SamplingParams(new, temperature=temperature, seed=seed, ignore_eos=True)
        [[answer]] = engine.generate([Request(name, prompt, params)])
        texts.append([*prompt, *answer.token_ids])
    return texts


def _english(tokenizer: Tokenizer) -> Texts:
    return [tokenizer.encode(topics.topics[name])[: PROMPT + NEW] for name in ENGLISH]


def _engine(model: GPTNeoX, tokenizer: Tokenizer, *, speculates: bool) -> Engine:
    config = EngineConfig(256, max_batch_size=max(BATCHES), speculates=speculates)
    return Engine(make_executor(model, config, tokenizer.num_tokens), tokenizer)


def _measured(model: Reciting, tokenizer: Tokenizer, batch: int, rounds: int) -> dict[str, Any]:
    """Medians of ``rounds``; ratios are of rounds that follow each other."""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(rounds):
        for speculates, times in found.items():
            engine = _engine(model, tokenizer, speculates=speculates)
            times.append(_decoded(engine, model.texts[:batch]))
    stats = engine.stats()
    tokens = batch * (NEW - 1)
    pairs = list(zip(found[False], found[True], strict=True))
    return {
        "accepted": round(stats.accepted_tokens / max(stats.draft_tokens, 1), 2),
        "tokens_a_pass": round(batch * NEW / stats.steps, 2),
        "tokens_per_s": _median(tokens / wall for wall, _ in found[False]),
        "with_drafts": _median(tokens / wall for wall, _ in found[True]),
        "times": _median(plain[0] / drafted[0] for plain, drafted in pairs),
        "times_by_processor": _median(plain[1] / drafted[1] for plain, drafted in pairs),
        "rounds": [[round(tokens / wall, 1) for wall, _ in found[kind]] for kind in (False, True)],
    }


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 2)


def _decoded(engine: Engine, texts: Texts) -> tuple[float, float]:
    """Seconds, and seconds of processors, from the first tokens to the last."""
    for seed, text in enumerate(texts):
        params = SamplingParams(NEW, temperature=0.0, seed=seed, ignore_eos=True)
        engine.add_request(Request(str(seed), tuple(text[:PROMPT]), params))
    answers = {str(seed): list[int]() for seed in range(len(texts))}
    begun: tuple[float, float] | None = None
    while engine.has_work:
        if begun is None and all(answers.values()):
            begun = time.perf_counter(), time.process_time()
        for output in engine.step():
            answers[output.request_id] += output.token_ids
    assert begun is not None
    assert [answers[str(seed)] for seed in range(len(texts))] == [text[PROMPT:] for text in texts]
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


if __name__ == "__main__":
    main()
