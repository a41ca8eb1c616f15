"""What ``decode_step.cu`` is compiled for. Needs neither a GPU nor Triton."""

from __future__ import annotations

from pathlib import Path

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.packing import CHUNKS
from pythia_bento.model.kernels.gpu.tiles import kv_tile

SOURCE = Path(__file__).parent / "decode" / "decode_step.cu"
BATCHES = (1, 2, 4, 8)
ROWS = 16  # of weights that a warp multiplies at a time
MOST_INPUTS = 20 << 10  # of all sequences, in shared memory: with more, four kernels are faster


def fits(config: ModelConfig, batch: int) -> bool:
    """Whether the kernel can compute ``batch`` sequences of a model."""
    hidden, head = config.hidden_size, config.head_dim
    is_stored_so = hidden % 128 == 0 and config.intermediate_size == CHUNKS * hidden
    return is_stored_so and head % 16 == 0 and head <= 256 and hidden * batch <= MOST_INPUTS


def constants_for(config: ModelConfig, batch: int, blocks: int, shared: int) -> dict[str, int]:
    """What the source is compiled for: a model, a batch, and a device's blocks and their memory."""
    tile = kv_tile(config.head_dim)
    return {
        "H": config.hidden_size,
        "HEADS": config.num_heads,
        "HEAD": config.head_dim,
        "ROTARY": config.rotary_dims,
        "TILE": tile,
        "TABLE": -(-config.max_positions // tile),
        "BATCH": batch,
        "LAYERS": config.num_layers,
        "BLOCKS": blocks,
        "SHARED": shared,
    }
