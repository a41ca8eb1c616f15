"""Small random checkpoints and what transformers makes of them, for tests of any layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pythia_bento.model.weights import Int8Linear, WeightSource
from tests.later import transformers
from tests.tokenizer_parts import raw_tokenizer

LINEARS = {
    "attention.query_key_value": "qkv",
    "attention.dense": "dense",
    "mlp.dense_h_to_4h": "up",
    "mlp.dense_4h_to_h": "down",
}


def random_checkpoint(
    path: Path,
    *,
    layers: int = 2,
    heads: int = 4,
    head_dim: int = 32,
    vocab: int = 300,
    dtype: torch.dtype = torch.float16,
    positions: int = 256,
    seed: int = 0,
    scale: float = 3.0,
) -> Path:
    """Write a random GPT-NeoX as transformers stores it, with a small tokenizer.json.

    Linears and embeddings are ``scale`` times as large as transformers initialises them, and norms
    and biases are random too, so that no part of the forward pass is idle.
    """
    model = random_model(layers, heads, head_dim, vocab, positions, seed, scale)
    model.to(dtype).save_pretrained(path)
    raw_tokenizer().save(str(path / "tokenizer.json"))
    return path


def random_model(
    layers: int,
    heads: int,
    head_dim: int,
    vocab: int,
    positions: int = 256,
    seed: int = 0,
    scale: float = 3.0,
) -> transformers.GPTNeoXForCausalLM:
    """The model behind ``random_checkpoint``, fp32."""
    hidden = heads * head_dim
    config = transformers.GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.GPTNeoXForCausalLM(config)
        randomize(model, scale)
    return model.eval()


@torch.no_grad()
def randomize(model: transformers.GPTNeoXForCausalLM, scale: float) -> None:
    """Make matrices larger, and norms and biases random, so that no part is idle."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            parameter.mul_(scale)
        else:
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.1)


def dequantized_model(path: Path, source: WeightSource) -> transformers.GPTNeoXForCausalLM:
    """transformers' own model in fp32, its linears replaced by what ``source`` quantised."""
    model = transformers.GPTNeoXForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        for index, block in enumerate(model.gpt_neox.layers):
            layer = source.layer(index)
            for name, field in LINEARS.items():
                linear: Int8Linear = getattr(layer, field)
                block.get_submodule(name).weight.copy_(dequantize(linear))
    return model


def dequantize(linear: Int8Linear) -> Tensor:
    """fp32 [out, in]."""
    return linear.weight.float() * (linear.scb[:, None] / 127)
