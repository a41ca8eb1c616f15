"""llama.cpp with Q8_0 weights, head included, through the C interface of llama-cpp-python."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

from bench.peers import weights, worker

MAX_SEQUENCES = 8
MAX_TOKENS = 1024
Q8_0 = gguf.GGMLQuantizationType.Q8_0


class LlamaCpp:
    """One context; each measurement starts with an empty cache."""

    def __init__(self, directory: Path, variant: str) -> None:
        llama_cpp.llama_backend_init()
        path = str(directory.with_suffix(".gguf")).encode()
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = MAX_TOKENS
        options.n_seq_max = MAX_SEQUENCES
        options.n_threads = options.n_threads_batch = worker.THREADS
        options.kv_unified = True
        self._model = llama_cpp.llama_model_load_from_file(
            path, llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path.decode()}")
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self._batch = llama_cpp.llama_batch_init(MAX_TOKENS, 0, 1)

    def decode(self, prompts: list[list[int]], new: int) -> float:
        tokens, position = self._prompt(prompts), len(prompts[0])
        start = time.perf_counter()
        for step in range(new):
            tokens = self._forward([[token] for token in tokens], position + step)
        return time.perf_counter() - start

    def prefill(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._prompt([prompt])
        return time.perf_counter() - start

    def _prompt(self, prompts: list[list[int]]) -> list[int]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        return self._forward(prompts, 0)

    def _forward(self, rows: list[list[int]], position: int) -> list[int]:
        """Compute rows of new tokens, all at ``position``; the likeliest next token of each."""
        self._fill(rows, position)
        if code := llama_cpp.llama_decode(self._context, self._batch):
            raise RuntimeError(f"llama_decode failed with {code}")
        last = np.cumsum([len(row) for row in rows]) - 1
        return [self._best(int(index)) for index in last]

    def _fill(self, rows: list[list[int]], position: int) -> None:
        batch, index = self._batch, 0
        for sequence, row in enumerate(rows):
            for offset, token in enumerate(row):
                batch.token[index] = token
                batch.pos[index] = position + offset
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = sequence
                batch.logits[index] = offset == len(row) - 1
                index += 1
        batch.n_tokens = index

    def _best(self, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, index)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


def convert(directory: Path) -> None:
    """Write a GGUF file beside the checkpoint."""
    target = directory.with_suffix(".gguf")
    if target.exists():
        return
    config, tensor = weights.read(directory)
    partial = target.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "gptneox")
    _metadata(writer, config)
    _tensors(writer, config, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(target)


def _metadata(writer: Any, config: dict[str, Any]) -> None:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(int(hidden // heads * config["rotary_pct"]))
    writer.add_head_count(heads)
    writer.add_parallel_residual(config["use_parallel_residual"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _tensors(writer: Any, config: dict[str, Any], tensor: Any) -> None:
    heads = config["num_attention_heads"]
    for name, to in (("embed_in", "token_embd"), ("embed_out", "output")):
        _add(writer, f"{to}.weight", tensor(f"{name}.weight"))
    pairs = [("final_layer_norm", "output_norm")]
    for index in range(config["num_hidden_layers"]):
        names = {
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ffn_norm",
            "attention.query_key_value": "attn_qkv",
            "attention.dense": "attn_output",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        }
        pairs += [(f"layers.{index}.{old}", f"blk.{index}.{new}") for old, new in names.items()]
    for old, new in pairs:
        for field in ("weight", "bias"):
            array = tensor(f"{old}.{field}")
            qkv = old.endswith("query_key_value")
            _add(writer, f"{new}.{field}", weights.split_qkv(array, heads) if qkv else array)


def _add(writer: Any, name: str, array: Any) -> None:
    """Matrices as Q8_0, vectors as fp32."""
    array = array.astype(np.float32)
    if array.ndim == 1:
        writer.add_tensor(name, array)
    else:
        writer.add_tensor(name, gguf.quants.quantize(array, Q8_0), raw_dtype=Q8_0)


if __name__ == "__main__":
    worker.main(LlamaCpp, convert)
