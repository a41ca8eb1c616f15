"""Random ``config.json`` files over all fields, in the forms of transformers 4 and 5."""

from __future__ import annotations

import random
from typing import Any

PLAIN: dict[str, Any] = {
    "model_type": "gpt_neox",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 300,
    "max_position_embeddings": 64,
}
# What a field may be made of beside its default, right or wrong.
VALUES: dict[str, list[Any]] = {
    "hidden_size": [32, 96, 128, 0, -64, 64.0, "64", True, None, 10**9, 10**4300],
    "num_hidden_layers": [2, 3, 0, -1, 10**9, 1.5, "1", [], True],
    "num_attention_heads": [1, 4, 3, 0, -1, 10**9, None, {}],
    "intermediate_size": [16, 256, 0, -1, 10**12],
    "vocab_size": [300, 512, 0, -5, 10**9],
    "max_position_embeddings": [2, 64, 4096, 0, -1, 10**12],
    "layer_norm_eps": [0, 1e-12, 1e-3, 0.5, -1e-5, 2, None, "1e-5"],
    "hidden_act": ["gelu", "gelu_new", "relu", "gelu_fast", None, 3],
    "use_parallel_residual": [True, False, 1, None],
    "attention_bias": [True, False],
    "tie_word_embeddings": [False, True],
    "head_dim": [None, 32, 64, 16],
    "rotary_pct": [0, 0.1, 0.25, 0.5, 1, 1.0, 0.97, 1.5, 8, 100, -0.25, None, "0.25"],
    "rotary_emb_base": [10000, 1e4, 500.0, 1e6, 0, 1, -1, None, 1e300],
    "rope_theta": [None, 1e4, 1e6],
    "partial_rotary_factor": [None, 0.25, 0.5],
    "rope_scaling": [
        None,
        {"type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "default"},
    ],
    "rope_parameters": [
        None,
        {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25},
        {"rope_type": "default", "rope_theta": 1e6},
        {"partial_rotary_factor": 1},
        {"partial_rotary_factor": 0.5, "rope_theta": 500},
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
        {"rope_type": "yarn", "factor": 4.0},
        {"rope_type": "llama3"},
        {"main": {"rope_theta": 1e4}},
        "default",
        [],
    ],
    "is_encoder_decoder": [False, True],
    "pruned_heads": [{}, {"0": [1]}],
    "chunk_size_feed_forward": [0, 8],
    "quantization_config": [None, {"quant_method": "gptq"}, {"load_in_4bit": True}],
    "model_type": ["gpt_neox", "llama", None, ["gpt_neox"]],
    # Irrelevant ones, which must not be refused.
    "attention_dropout": [0.1],
    "bos_token_id": [7],
    "eos_token_id": [2, [0, 2]],
    "torch_dtype": ["float16"],
    "use_cache": [False],
    "architectures": [["GPTNeoXForCausalLM"], None],
    # Unknown ones, which must be.
    "sliding_window": [128],
    "logit_scale": [2.0],
    "auto_map": [{"AutoModel": "code.py"}],
}


def draw_config(draw: random.Random, changes: int) -> dict[str, Any]:
    """A plain config with some fields changed, and now and then one missing."""
    raw = dict(PLAIN)
    for name in draw.sample(list(VALUES), changes):
        raw[name] = draw.choice(VALUES[name])
    if draw.random() < 0.05:
        del raw[draw.choice(list(raw))]
    return raw
