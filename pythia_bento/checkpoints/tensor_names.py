"""Names and shapes of the tensors in a Pythia checkpoint, as transformers stores them."""

from __future__ import annotations

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.weights import Part

PREFIX = "gpt_neox."
EMBEDDING = "gpt_neox.embed_in.weight"
FINAL_NORM = "gpt_neox.final_layer_norm"
HEAD = "embed_out"
"""transformers 5 calls the module ``lm_head`` in memory and still stores ``embed_out``."""

INPUT_NORM = "input_layernorm"
POST_ATTENTION_NORM = "post_attention_layernorm"
QKV = "attention.query_key_value"
DENSE = "attention.dense"
UP = "mlp.dense_h_to_4h"
DOWN = "mlp.dense_4h_to_h"

_BUFFERS = ("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq")
"""Causal mask and rotary table that transformers 4 stored with the weights."""


def canonical(name: str) -> str | None:
    """The name this package uses for a stored tensor; None for buffers."""
    name = name.removeprefix(PREFIX)
    if name.endswith(_BUFFERS):
        return None
    module, _, field = name.rpartition(".")
    return f"{HEAD}.{field}" if module in ("lm_head", HEAD) else PREFIX + name


def layer_prefix(index: int) -> str:
    """What the names of block ``index`` begin with."""
    return f"{PREFIX}layers.{index}."


def part_of(name: str) -> Part:
    """Which part of a model needs the tensor of that name, which ``canonical`` gave."""
    if name == EMBEDDING:
        return "embedding"
    after = name.removeprefix(f"{PREFIX}layers.")
    return "head" if after == name else int(after.partition(".")[0])


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint must have, before any 8-bit extras."""
    hidden, vocab = config.hidden_size, config.vocab_size
    expected: dict[str, tuple[int, ...]] = {EMBEDDING: (vocab, hidden)}
    for index in range(config.num_layers):
        expected |= _layer_shapes(layer_prefix(index), hidden, config.intermediate_size)
    return expected | _norm_shapes(FINAL_NORM, hidden) | {f"{HEAD}.weight": (vocab, hidden)}


def _layer_shapes(prefix: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    linears = {QKV: (3 * hidden, hidden), DENSE: (hidden, hidden)}
    linears |= {UP: (inner, hidden), DOWN: (hidden, inner)}
    expected: dict[str, tuple[int, ...]] = {}
    for name, (out, depth) in linears.items():
        expected |= {f"{prefix}{name}.weight": (out, depth), f"{prefix}{name}.bias": (out,)}
    for name in (INPUT_NORM, POST_ATTENTION_NORM):
        expected |= _norm_shapes(prefix + name, hidden)
    return expected


def _norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
