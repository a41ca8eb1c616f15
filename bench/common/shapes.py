"""Random checkpoints in the shape of a Pythia, in the format of the suite's own files (fp16)."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pythia_bento import catalog
from pythia_bento.checkpoints import tensor_names
from pythia_bento.model.config import ModelConfig

NUM_TOKENS = 50277  # as in Pythia's tokenizer: fewer than the model has rows
END_OF_TEXT = "<|endoftext|>"
WEIGHT_STD = 0.02


def head_weights(config: ModelConfig) -> int:
    """Weights of the head, and as many of the embedding."""
    return config.vocab_size * config.hidden_size


def write_checkpoint(name: str, directory: Path) -> None:
    """Write the random checkpoint of a shape, a layer in memory at a time; keep one that exists."""
    if directory.exists():
        return
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = catalog.config(name)
    (partial / "config.json").write_text(json.dumps(raw_config(config), indent=2))
    tokenizer().save(str(partial / "tokenizer.json"))
    _write_weights(config, partial)
    partial.rename(directory)


def raw_config(config: ModelConfig) -> dict[str, object]:
    """``config.json`` as the suite's checkpoints have it."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "hidden_act": "gelu",
        "rotary_pct": config.rotary_dims / config.head_dim,
        "rotary_emb_base": config.rotary_base,
        "layer_norm_eps": config.norm_eps,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "float16",
    }


def _write_weights(config: ModelConfig, directory: Path) -> None:
    """One file a layer, and one for each other module."""
    weight_map: dict[str, str] = {}
    generator = torch.Generator().manual_seed(0)
    for part, group in itertools.groupby(
        tensor_names.shapes(config).items(), lambda item: _part(item[0])
    ):
        tensors = {name: _random(name, shape, generator) for name, shape in group}
        save_file(tensors, directory / f"{part}.safetensors", metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, f"{part}.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _part(name: str) -> str:
    """``layers-3``, or the module that is in no layer."""
    parts = name.split(".")
    return "-".join(parts[1:3] if parts[1] == "layers" else parts[:-1])


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=generator).mul_(WEIGHT_STD)
    if "norm" in name and name.endswith(".weight"):
        values += 1
    return values.half()


def tokenizer(num_tokens: int = NUM_TOKENS) -> Tokenizer:
    """A byte-level BPE that knows single bytes, and fills its vocabulary with unused triples."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    triples = ("".join(letters) for letters in itertools.product(alphabet, repeat=3))
    fill = itertools.islice(triples, num_tokens - 1 - len(alphabet))
    vocab = {token: id for id, token in enumerate([END_OF_TEXT, *alphabet, *fill])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer
