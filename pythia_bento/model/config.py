"""The shape of a GPT-NeoX model in the Pythia mould, read from a checkpoint's ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_bento.errors import CheckpointError


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

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """Read ``config.json``; raises CheckpointError on anything that is not a Pythia."""
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            raise CheckpointError(f"checkpoint has no {path.name}: {path.parent}") from None
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
        return cls.from_dict(raw)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelConfig:
        """Build from the parsed ``config.json`` of transformers 4 or 5."""
        _require_pythia(raw)
        rope = raw.get("rope_parameters") or {}
        try:
            head_dim = raw["hidden_size"] // raw["num_attention_heads"]
            fraction = raw.get("rotary_pct", rope.get("partial_rotary_factor", 0.25))
            return cls(
                num_layers=raw["num_hidden_layers"],
                hidden_size=raw["hidden_size"],
                num_heads=raw["num_attention_heads"],
                intermediate_size=raw["intermediate_size"],
                vocab_size=raw["vocab_size"],
                max_positions=raw["max_position_embeddings"],
                rotary_dims=int(head_dim * fraction),
                rotary_base=float(raw.get("rotary_emb_base", rope.get("rope_theta", 10000.0))),
                norm_eps=float(raw.get("layer_norm_eps", 1e-5)),
            )
        except KeyError as missing:
            raise CheckpointError(f"config.json lacks the field {missing}") from None


def _require_pythia(raw: dict[str, Any]) -> None:
    """Refuse architectures whose forward pass this package does not compute."""
    wanted: dict[str, tuple[Any, ...]] = {
        "model_type": ("gpt_neox",),
        "hidden_act": ("gelu",),
        "use_parallel_residual": (True,),
        "tie_word_embeddings": (False,),
        "attention_bias": (True,),
    }
    defaults = {
        "hidden_act": "gelu",
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "attention_bias": True,
    }
    for field, allowed in wanted.items():
        value = raw.get(field, defaults.get(field))
        if value not in allowed:
            raise CheckpointError(
                f"config.json has {field}={value!r}; a Pythia checkpoint has {allowed[0]!r}"
            )
