from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pythia_bento.checkpoints.config_file import parse_config, read_config
from pythia_bento.errors import CheckpointError
from pythia_bento.model.config import ModelConfig
from tests.config_files import PLAIN, draw_config

QUANTIZED = {"quant_method": "bitsandbytes", "load_in_8bit": True, "_load_in_8bit": True}


def parse(**fields: Any) -> ModelConfig:
    return parse_config({**PLAIN, **fields})


def test_a_config_of_transformers_4() -> None:
    config = parse(rotary_pct=0.5, rotary_emb_base=20000, layer_norm_eps=1e-3, use_cache=True)
    assert (config.rotary_dims, config.rotary_base, config.norm_eps) == (16, 20000.0, 1e-3)
    assert config.head_dim == 32


def test_a_config_of_transformers_5() -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 1.0}
    config = parse(rope_parameters=rope, quantization_config=QUANTIZED)
    assert (config.rotary_dims, config.rotary_base) == (32, 1e6)


def test_defaults_are_those_of_transformers() -> None:
    config = parse()
    assert (config.rotary_dims, config.rotary_base, config.norm_eps) == (8, 1e4, 1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        # What transformers computes with, and this package does not.
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling.type"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_parameters.rope_type"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters.rope_type"),
        (
            {"rotary_emb_base": 1e4, "rope_parameters": {"rope_theta": 1e6}},
            "rotary_emb_base 10000 and rope_parameters.rope_theta 1e[+]06 contradict",
        ),
        (
            {"rotary_pct": 0.25, "rope_parameters": {"partial_rotary_factor": 1}},
            "rotary_pct 0.25 and rope_parameters.partial_rotary_factor 1 contradict",
        ),
        # transformers 5 does not look there.
        (
            {"partial_rotary_factor": 0.5},
            "default of rotary_pct 0.25 and .*_factor 0.5",
        ),
        (
            {"rotary_emb_base": 1e6, "rope_theta": 1e4},
            "base 1e[+]06 and rope_theta 10000",
        ),
        ({"rotary_pct": 0.1}, "0.1 of 32 dimensions are 3 that rotate"),
        ({"rotary_pct": 0.97}, "31 that rotate"),
        ({"head_dim": 64}, "head_dim is 64, but hidden_size / num_attention_heads is 32"),
        ({"hidden_act": "gelu_new"}, "hidden_act must be 'gelu', not 'gelu_new'"),
        ({"use_parallel_residual": False}, "use_parallel_residual"),
        ({"use_parallel_residual": 1}, "use_parallel_residual must be a valid boolean, not 1"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings must be a valid boolean, not 0"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings must be false"),
        ({"attention_bias": False}, "attention_bias"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"sliding_window": 64}, "sliding_window is not known here"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config.quant_method"),
        # What would make a kernel read or write outside.
        ({"rotary_pct": 8.0}, "rotary_pct must be less than or equal to 1, not 8.0"),
        ({"rotary_pct": 1.5}, "rotary_pct"),
        ({"rotary_pct": -0.5}, "rotary_pct"),
        ({"num_attention_heads": 3}, "hidden_size is 64, which 3 .* does not divide"),
        ({"num_attention_heads": 0}, "num_attention_heads must be greater"),
        ({"num_attention_heads": -1}, "num_attention_heads"),
        # What is no number, or none that a model has.
        ({"rotary_pct": "0.25"}, "rotary_pct must be a valid number, not '0.25'"),
        ({"hidden_size": True}, "hidden_size must be a valid integer, not True"),
        ({"hidden_size": 10**4300}, "hidden_size .* not a huge number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be less than or equal to 256"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ({"max_position_embeddings": -1}, "max_position_embeddings"),
        ({"model_type": "llama"}, "model_type must be 'gpt_neox'"),
    ],
)
def test_what_is_not_computed_exactly_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        parse(**fields)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "must be an object"),
        ("null", "must be an object"),
        ("{", "cannot be read as JSON"),
        ('{"layer_norm_eps": NaN}', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        (json.dumps({"model_type": "gpt_neox"}), "the field hidden_size is missing"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=words):
        read_config(path)


def test_bytes_that_are_no_text_and_no_file_at_all(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match=r"checkpoint has no config.json"):
        read_config(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        read_config(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_config(tmp_path)


def test_drawn_configs_are_read_or_refused_in_a_sentence() -> None:
    draw = random.Random(1)
    read = 0
    for _ in range(3000):
        raw = draw_config(draw, draw.randint(0, 4))
        try:
            config = parse_config(raw)
        except CheckpointError as error:
            assert "\n" not in error.message and len(error.message) < 400
        else:
            read += 1
            assert config.rotary_dims % 2 == 0 <= config.rotary_dims <= config.head_dim
            assert config.head_dim * config.num_heads == config.hidden_size
    assert 300 < read < 2700
