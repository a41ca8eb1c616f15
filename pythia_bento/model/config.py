"""The shape of a GPT-NeoX model in the Pythia mould."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Every size that the forward pass needs; names follow transformers' ``GPTNeoXConfig``."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    """Rows of the embedding and the head; the tokenizer may have fewer tokens."""
    max_positions: int
    rotary_dims: int
    """Leading dimensions of each head that rotate (25 % of head_dim in Pythia)."""
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads
