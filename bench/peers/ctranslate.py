"""CTranslate2: weights, head and embedding in int8."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.specs import common_spec, transformer_spec

from bench.peers import weights, worker


class CTranslate2:
    """Steps cannot be driven one by one: decoding is the difference of a long and a short run."""

    def __init__(self, directory: Path, variant: str) -> None:
        self._generator = ctranslate2.Generator(
            str(directory.with_suffix(".ct2")),
            compute_type="int8",
            intra_threads=worker.THREADS,
        )
        self._tokens = weights.tokens(directory, worker.NUM_TOKENS)

    def decode(self, prompts: list[list[int]], new: int) -> float:
        first = self._seconds(prompts, 1)
        return self._seconds(prompts, new + 1) - first

    def prefill(self, prompt: list[int]) -> float:
        return self._seconds([prompt], 1)

    def _seconds(self, prompts: list[list[int]], new: int) -> float:
        start = time.perf_counter()
        self._generator.generate_batch(
            [[self._tokens[id] for id in prompt] for prompt in prompts],
            max_length=new,
            min_length=new,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return time.perf_counter() - start


def convert(directory: Path) -> None:
    """Write CTranslate2's own format beside the checkpoint."""
    target = directory.with_suffix(".ct2")
    if target.exists():
        return
    config, tensor = weights.read(directory)
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config["num_hidden_layers"],
        heads,
        activation=common_spec.Activation.GELU,
        pre_norm=True,
        rotary_dim=int(hidden // heads * config["rotary_pct"]),
        rotary_interleave=False,
        parallel_residual=True,
    )
    _fill(spec.decoder, heads, tensor)
    spec.register_vocabulary(weights.tokens(directory, config["vocab_size"]))
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = "<|endoftext|>"
    spec.validate()
    spec.optimize(quantization="int8")
    target.mkdir()
    spec.save(str(target))


def _fill(decoder: Any, heads: int, tensor: Any) -> None:
    decoder.scale_embeddings = False
    decoder.embeddings.weight = tensor("embed_in.weight")
    decoder.projection.weight = tensor("embed_out.weight")
    _norm(decoder.layer_norm, "final_layer_norm", tensor)
    for index, layer in enumerate(decoder.layer):
        prefix = f"layers.{index}."
        _norm(layer.input_layer_norm, f"{prefix}input_layernorm", tensor)
        _norm(layer.post_attention_layer_norm, f"{prefix}post_attention_layernorm", tensor)
        qkv, dense = layer.self_attention.linear
        name = f"{prefix}attention.query_key_value"
        qkv.weight = weights.split_qkv(tensor(f"{name}.weight"), heads)
        qkv.bias = weights.split_qkv(tensor(f"{name}.bias"), heads)
        _linear(dense, f"{prefix}attention.dense", tensor)
        _linear(layer.ffn.linear_0, f"{prefix}mlp.dense_h_to_4h", tensor)
        _linear(layer.ffn.linear_1, f"{prefix}mlp.dense_4h_to_h", tensor)


def _linear(linear: Any, name: str, tensor: Any) -> None:
    linear.weight, linear.bias = tensor(f"{name}.weight"), tensor(f"{name}.bias")


def _norm(norm: Any, name: str, tensor: Any) -> None:
    norm.gamma, norm.beta = tensor(f"{name}.weight"), tensor(f"{name}.bias")


if __name__ == "__main__":
    worker.main(CTranslate2, convert)
