"""What ``prefill_in.cu`` and ``prefill_out.cu`` are compiled for. Needs no GPU."""

from __future__ import annotations

from pathlib import Path

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.packing import CHUNKS

SOURCES = {
    name: Path(__file__).parent / "prefill" / f"{name}.cu" for name in ("prefill_in", "prefill_out")
}
ROWS = 128  # of weights of a tile
DEPTH = 64  # inputs of a slot of the ring
# Tokens of a tile, and how many blocks share them; measured by ``bench.gpu.prefill_product``.
TILES = {"prefill_in": {64: 1, 128: 1, 192: 2}, "prefill_out": {64: 1, 128: 2}}


def fits(config: ModelConfig) -> bool:
    """Whether the kernels can compute a model."""
    return (
        config.hidden_size % ROWS == 0 and config.intermediate_size == CHUNKS * config.hidden_size
    )


def largest_cluster(config: ModelConfig) -> int:
    """Most blocks that may share tokens: two where rows of each kind make even numbers."""
    return 2 if config.hidden_size % (2 * ROWS) == 0 else 1


def constants_for(
    config: ModelConfig, tokens: int, shared: int, cluster: int, *, checked: bool = False
) -> dict[str, int]:
    """What the source is compiled for: a model, a tile's tokens, a device's shared memory."""
    return {
        "H": config.hidden_size,
        "TOKENS": tokens,
        "CLUSTER": cluster,
        "SHARED": shared,
        "CHECKED": int(checked),
    }


def parts(tokens: int, cluster: int) -> tuple[int, ...]:
    """Tokens of a tile that each block of a cluster loads: whole groups of eight."""
    first = tokens if cluster == 1 else -(-tokens // 16) * 8
    return (first,) if cluster == 1 else (first, tokens - first)


def multiply_header(tokens: int) -> str:
    """``multiply_add`` for tiles of this width: the instruction names each of its registers."""
    count = tokens // 2
    sums = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    return f"""#pragma once
// d (64 rows of a x {tokens} rows of b) = a b^T, plus d unless ``adds`` is 0; 16 of K.
__device__ __forceinline__ void multiply_add(
    float (&d)[{count}], unsigned long long a, unsigned long long b, int adds) {{
    asm volatile(
        "{{ .reg .pred p; setp.ne.b32 p, %{count + 2}, 0;\\n"
        "wgmma.mma_async.sync.aligned.m64n{tokens}k16.f32.f16.f16 "
        "{{{sums}}}, %{count}, %{count + 1}, p, 1, 1, 0, 0; }}"
        : {operands}
        : "l"(a), "l"(b), "r"(adds));
}}
"""
