"""vLLM over the same loads as ``bench.workloads``, in fp16 with its defaults but without its cache
of prefixes, which random prompts would only slow down.

Its packages may lie in a folder of their own, so it runs in a process of its own, whose
``PYTHONPATH`` begins there: ``python -m bench.peers.vllm MODEL WORKLOAD ...`` prints a row a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine without a pipe, as ours is measured
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it may not be there, and PyTorch's is the default
}
SHARE = 0.5  # of the device's memory

Row = dict[str, Any]
Seconds = Callable[[Sequence[tuple[Sequence[int], dict[str, Any]]]], float]


def rows(folder: Path, name: str, workloads: Sequence[str]) -> Iterator[Row]:
    """Rows of a process that finds vLLM in ``folder``; its log goes to standard error.

    Raises subprocess.CalledProcessError when it fails.
    """
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "bench.peers.vllm", name, *workloads]
    environment = {**os.environ, **SETTINGS, "PYTHONPATH": path}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        yield from (json.loads(line) for line in child.stdout if line.startswith("{"))
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)


def main() -> None:
    """The child: load, measure, print."""
    name, *workloads = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    with tempfile.TemporaryDirectory() as folder:
        _save(name, folder)
        seconds = _loaded(folder)
    for workload in workloads:
        for row in LOADS[workload](seconds):
            print(json.dumps(row), file=out, flush=True)


def _save(name: str, folder: str) -> None:
    """Random weights in the shape of ``name``, in fp16."""
    import torch

    from bench.gpu.peers import random_model

    model = random_model(name)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def _loaded(folder: str) -> Seconds:
    """How long requests of token ids and options take together."""
    import torch
    import vllm

    llm = vllm.LLM(
        model=folder,
        skip_tokenizer_init=True,
        dtype="float16",
        gpu_memory_utilization=SHARE,
        max_model_len=2048,
        enable_prefix_caching=False,
    )

    def seconds(requests: Sequence[tuple[Sequence[int], dict[str, Any]]]) -> float:
        from bench.gpu import harness

        prompts = [vllm.inputs.TokensPrompt(prompt_token_ids=[*ids]) for ids, _ in requests]
        fixed = {"temperature": 0.0, "ignore_eos": True, "detokenize": False}
        params = [vllm.SamplingParams(**{**fixed, **options}) for _, options in requests]
        start = harness.now()
        found = llm.generate(prompts, params, use_tqdm=False)
        torch.cuda.synchronize()
        took = harness.now() - start
        counts = [len(one.outputs[0].token_ids) for one in found]
        assert counts == [options["max_tokens"] for _, options in requests]
        return took

    return seconds


def _score(seconds: Seconds) -> Iterator[Row]:
    from bench.workloads import TEXTS

    for texts, length in TEXTS:
        took = _typical(seconds, texts, length, max_tokens=1, prompt_logprobs=0)
        yield _row("score", took, texts * length, texts=texts, prompt=length)


def _mixed(seconds: Seconds) -> Iterator[Row]:
    from bench.workloads import generated, mixture, typical

    took = typical(
        lambda _: seconds([(r.prompt, {"max_tokens": r.params.max_tokens}) for r in mixture()])
    )
    yield _row("mixed", took, generated())


def _options(seconds: Seconds) -> Iterator[Row]:
    from bench.workloads import BATCHES, NEW, OPTIONS

    for name, fields in OPTIONS.items():
        for batch in BATCHES:
            took = _steps(seconds, batch, 128, NEW, **fields)
            yield _row("options", took, batch * (NEW - 1), batch=batch, prompt=128, options=name)


def _prefill(seconds: Seconds) -> Iterator[Row]:
    from bench.workloads import PROMPTS

    for batch, prompt in PROMPTS:
        took = _typical(seconds, batch, prompt, max_tokens=1)
        yield _row("prefill", took, batch * prompt, batch=batch, prompt=prompt)


def _context(seconds: Seconds) -> Iterator[Row]:
    from bench.workloads import CONTEXT_NEW, CONTEXTS

    for batch, length in CONTEXTS:
        took = _steps(seconds, batch, length - CONTEXT_NEW // 2, CONTEXT_NEW)
        yield _row("context", took, batch * (CONTEXT_NEW - 1), batch=batch, context=length)


LOADS = {
    "score": _score,
    "mixed": _mixed,
    "options": _options,
    "prefill": _prefill,
    "context": _context,
}


def _typical(seconds: Seconds, count: int, length: int, **options: Any) -> float:
    from bench.gpu import harness
    from bench.workloads import typical

    return typical(
        lambda seed: seconds(
            [(r.prompt, options) for r in harness.requests(count, length, 1, seed)]
        )
    )


def _steps(seconds: Seconds, batch: int, prompt: int, new: int, **options: Any) -> float:
    """Of all tokens but the first: a whole answer less one of a single token."""
    whole, first = (
        _typical(seconds, batch, prompt, max_tokens=count, **options) for count in (new, 1)
    )
    return whole - first


def _row(workload: str, took: float, tokens: int, **shape: Any) -> Row:
    import vllm

    from bench.workloads import row

    return row(workload, took, tokens, **shape) | {"backend": f"vLLM {vllm.__version__} fp16"}


if __name__ == "__main__":
    main()
