"""Whether a drawn ``config.json`` is computed as transformers does, on every backend there is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.config_file import parse_config
from pythia_bento.errors import CheckpointError
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from tests.config_files import PLAIN, draw_config
from tests.forward import Driver
from tests.later import transformers
from tests.models import dequantized_model, randomize
from tests.tokenizer_parts import raw_tokenizer

BACKENDS = ["reference", "cpu"]
TOLERANCE = 1e-3  # of a log-probability
PROMPT = [5, 9, 200, 31, 7, 7, 101, 60, 12, 250, 3]


def accepted(draw: random.Random) -> dict[str, Any]:
    """A drawn config that is read, has room for the prompt, and is not the plain one."""
    while True:
        raw = draw_config(draw, draw.randint(1, 4))
        try:
            config = parse_config(raw)
        except CheckpointError:
            continue
        numbers = {name: raw.get(name) for name in PLAIN} | {"rotary": config.rotary_dims}
        if config.max_positions >= len(PROMPT) and numbers != {**PLAIN, "rotary": 8}:
            return raw


def write(raw: dict[str, Any], path: Path) -> None:
    """Random weights as transformers makes them for this config."""
    if "layer_norm_eps" in raw:  # JSON knows one kind of number, and transformers 5 two
        raw = {**raw, "layer_norm_eps": float(raw["layer_norm_eps"])}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig.from_dict(raw))
        randomize(model, scale=3.0)
    model.half().save_pretrained(path)
    (path / "config.json").write_text(json.dumps(raw))
    raw_tokenizer().save(str(path / "tokenizer.json"))


def has_odd_sizes(config: ModelConfig) -> bool:
    """Whether the compiled kernels say that they cannot compute it."""
    sizes = (config.hidden_size, config.head_dim, config.intermediate_size)
    return any(size % 16 for size in sizes)


def differences(path: Path) -> dict[str, float]:
    """Backend -> the largest difference of a log-probability from transformers in fp32."""
    source = load_checkpoint(str(path)).source
    with torch.no_grad():
        theirs = dequantized_model(path, source)(torch.tensor([PROMPT])).logits[0]
    found = {}
    for name in BACKENDS:
        try:
            kernels = create(name, source.config, torch.device("cpu"))
        except ValueError:  # its own refusal, after which the reference serves
            assert name == "cpu" and has_odd_sizes(source.config)
            continue
        model = GPTNeoX(source, kernels)
        ours = Driver(model, [PROMPT], room=1).prefill_logits(0)
        found[name] = (ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max().item()
    return found
