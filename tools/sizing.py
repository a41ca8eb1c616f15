"""How many sequences of full context fit beside the weights: the tables of docs/operations.md.

    python tools/sizing.py gpu
    python tools/sizing.py cpu

Calculated, not measured: weights in 8 bits, keys and values in fp16 (GPU) or fp32 (CPU), and the
share of memory that the service gives to them (``memory_plan.CACHE_SHARE``). The largest pass has
its room (``base.pass_bytes``); what PyTorch, CUDA and the interpreter take is put at RESERVED.
"""

from __future__ import annotations

import sys

from pythia_bento.catalog import SIZES, int8_bytes
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.base import pass_bytes
from pythia_bento.runtime.loading import TOKENS_PER_STEP
from pythia_bento.runtime.memory_plan import CACHE_SHARE
from pythia_bento.settings import Settings

GB = 10**9
KV_BYTES = {"gpu": 2, "cpu": 4}  # of a number
MEMORY_GB = {"gpu": (16, 24, 48, 80, 141), "cpu": (2, 4, 8, 16, 32, 64)}
CONTEXTS = (512, 2048)
DEFAULTS = Settings()
RESERVED = {"gpu": 1.5 * GB, "cpu": 0.5 * GB}


def kv_bytes_per_token(config: ModelConfig, kind: str) -> int:
    """Keys and values of all layers."""
    return 2 * config.num_layers * config.hidden_size * KV_BYTES[kind]


def tokens_that_fit(config: ModelConfig, kind: str, memory: float) -> int:
    """In the KV cache that the service makes by default; 0 where the weights do not fit."""
    share = CACHE_SHARE["cuda" if kind == "gpu" else "cpu"]
    left = memory - RESERVED[kind] - int8_bytes(config)
    if kind == "gpu":
        left -= pass_bytes(config, DEFAULTS.batch_size("cuda"), TOKENS_PER_STEP["cuda"])
    # A GPU is asked what is free once the weights are there, a container what it may have in all.
    cache = int(left * share) if kind == "gpu" else int(memory * share)
    return 0 if cache > left else max(0, cache) // kv_bytes_per_token(config, kind)


def row(size: str, kind: str) -> list[str]:
    """Size, weights, KV bytes a token, and for each memory the sequences of each context."""
    config = SIZES[size].config
    cells = [f"{size}", f"{int8_bytes(config) / GB:.2f}", f"{kv_bytes_per_token(config, kind):,}"]
    for memory in MEMORY_GB[kind]:
        tokens = tokens_that_fit(config, kind, memory * GB)
        counts = [tokens // context for context in CONTEXTS]
        cells.append(" / ".join(f"{count:,}" for count in counts) if counts[0] else "-")
    return cells


def table(kind: str) -> str:
    """In Markdown."""
    memories = [f"{memory} GB" for memory in MEMORY_GB[kind]]
    rows = [["model", "weights, GB", "KV bytes a token", *memories]]
    rows += [["---"] * len(rows[0]), *(row(size, kind) for size in SIZES)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    print(table(sys.argv[1]))
