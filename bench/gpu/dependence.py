"""Do answers depend on who else is asking? ``python -m bench.gpu.dependence``.

Greedy continuations of 8 prompts, each alone and all together, by this engine and by bitsandbytes'
LLM.int8, through ``PYTHIA_MATMUL=llm-int8`` and through transformers. Counts the continuations that
change, and how far the log-probabilities of their common beginnings move. A random checkpoint gets
some outlier columns, as trained ones have: LLM.int8 treats those apart, and looks for them in all
rows of the batch.

On a processor: ``python -m bench.gpu.dependence --device cpu --model bundled``.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.common.options import parser_of
from bench.common.random_model import SUITE, write_int8
from bench.gpu import harness
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.save import save_int8
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer

CACHE = Path(tempfile.gettempdir()) / "pythia-bento-bench"
OUTLIERS = 16  # columns
OURS = "pythia-bento w8a16"
KV_GB = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy continuation: tokens and their log-probabilities."""

    tokens: list[int]
    logprobs: list[float]


Prompts = Sequence[Sequence[int]]
Generate = Callable[[Prompts], list[Answer]]  # of a batch


def main() -> None:
    options = _options()
    path = checkpoint(options.model, options.device)
    last = Tokenizer.from_file(path / "tokenizer.json").num_tokens - 1
    draw = random.Random(0)
    # One length, so that no backend pads.
    prompts = [[draw.randint(1, last) for _ in range(options.prompt)] for _ in range(options.batch)]
    backends: dict[str, Callable[[], Generate]] = {
        OURS: lambda: engine(path, options, "w8a16"),
        "pythia-bento llm-int8": lambda: engine(path, options, "llm-int8"),
        "transformers + bitsandbytes, threshold 6": lambda: transformers(path, options, 6.0),
        "transformers + bitsandbytes, threshold 0": lambda: transformers(path, options, 0.0),
    }
    rows = []
    for backend, make in backends.items():
        alone = answers(make, [[prompt] for prompt in prompts])
        together = answers(make, [prompts])
        rows.append({"model": options.model, "backend": backend, "batch": options.batch})
        rows[-1] |= {"prompt": options.prompt, "new": options.new, **compare(alone, together)}
        print(rows[-1], flush=True)
        harness.write(options.out, rows)
    sys.exit(rows[0]["changed"] > 0 or rows[0]["max_logprob_difference"] > 0)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.gpu.dependence", __doc__)
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--out", default="bench/results/h200-dependence.json")
    return parser.parse_args()


def answers(make: Callable[[], Generate], batches: Sequence[Prompts]) -> list[Answer]:
    """Of a model loaded for these batches alone, whose caches know nothing of others."""
    generate = make()
    found = [answer for prompts in batches for answer in generate(prompts)]
    del generate
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def checkpoint(model: str, device: str) -> Path:
    """A directory in bitsandbytes' 8-bit format that all backends read."""
    if model in SUITE:
        path = CACHE / f"{model}-int8-outliers"
        write_int8(model, path, torch.device(device), outliers=OUTLIERS)
        return path
    found = load_checkpoint(model)
    path = CACHE / f"{model.replace('/', '-')}-int8"
    if not path.exists():
        save_int8(found.source, found.path, path)
    return path


def engine(path: Path, options: argparse.Namespace, matmul: str) -> Generate:
    """This engine; prompts and decode steps share every forward pass."""
    from bench.common.alone import load_alone
    from pythia_bento.settings import load_settings

    sizes = {"max_batch_size": options.batch, "kv_cache_gb": KV_GB}
    sizes["max_tokens_per_step"] = options.batch * options.prompt
    settings = load_settings(
        {"model": str(path), "device": options.device, "matmul": matmul, **sizes}
    )
    loaded = load_alone(settings)[0]
    params = SamplingParams(max_tokens=options.new, temperature=0.0, ignore_eos=True, logprobs=0)

    def generate(prompts: Prompts) -> list[Answer]:
        requests = [Request(f"{i}", tuple(p), params) for i, p in enumerate(prompts)]
        answers = [answer for (answer,) in loaded.generate(requests)]
        return [Answer(a.token_ids, [lp.logprob for lp in a.logprobs or []]) for a in answers]

    return generate


def transformers(path: Path, options: argparse.Namespace, threshold: float) -> Generate:
    """``forward`` with its cache, on equally long prompts."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float16, device_map=options.device
    ).eval()
    set_threshold(model, threshold)

    @torch.inference_mode()
    def generate(prompts: Prompts) -> list[Answer]:
        ids = torch.tensor(prompts, device=options.device)
        cache, tokens, logprobs = None, [], []
        for _ in range(options.new):
            out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            scores = out.logits[:, -1].float().log_softmax(-1)
            best = scores.max(-1)
            ids = best.indices[:, None]
            tokens.append(best.indices.tolist())
            logprobs.append(best.values.tolist())
        columns = zip(zip(*tokens, strict=True), zip(*logprobs, strict=True), strict=True)
        return [Answer(list(ids), list(values)) for ids, values in columns]

    return generate


def set_threshold(model: torch.nn.Module, threshold: float) -> None:
    """``llm_int8_threshold`` of a loaded model."""
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear8bitLt):
            module.state.threshold = threshold


def compare(alone: Sequence[Answer], together: Sequence[Answer]) -> dict[str, Any]:
    """How many answers differ, and the largest difference before they do."""
    moved = [0.0]
    for one, other in zip(alone, together, strict=True):
        same = common(one.tokens, other.tokens)
        pairs = zip(one.logprobs[:same], other.logprobs[:same], strict=True)
        moved += [abs(before - after) for before, after in pairs]
    changed = sum(a.tokens != b.tokens for a, b in zip(alone, together, strict=True))
    return {"changed": changed, "of": len(alone), "max_logprob_difference": max(moved)}


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(one, other, strict=True)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(one))


if __name__ == "__main__":
    main()
