"""``config.json`` of transformers 4 and 5: every field is honoured, irrelevant, or refused by name.

The fields are those of ``GPTNeoXConfig`` and of ``PreTrainedConfig`` (transformers 4.57 and 5.23).
What is refused would change the numbers that transformers computes, and this package would not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pythia_bento.checkpoints.strict import No, Strict, Yes, check, read_json
from pythia_bento.errors import CheckpointError
from pythia_bento.model.config import ModelConfig

DEFAULT_BASE, DEFAULT_FRACTION = 10000.0, 0.25  # of GPTNeoXConfig

# The suite's largest sizes with much room; nothing larger was ever trained in this shape.
Layers = Annotated[int, Field(ge=1, le=256)]
Heads = Annotated[int, Field(ge=1, le=1024)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Inner = Annotated[int, Field(ge=1, le=131_072)]
Rows = Annotated[int, Field(ge=1, le=1_000_000)]
Positions = Annotated[int, Field(ge=1, le=65_536)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Base = Annotated[float, Field(gt=1, le=1e9)]
Epsilon = Annotated[float, Field(ge=0, le=1)]

# Fields that change no logit: of training, of generation (the request has its own), of how
# transformers loads and what it returns, labels. Each is named, so that a new one is looked at.
_IRRELEVANT = """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures
    attention_dropout attention_probs_dropout_prob attn_implementation bos_token_id
    classifier_dropout decoder_start_token_id dtype eos_token_id finetuning_task
    gradient_checkpointing hidden_dropout hidden_dropout_prob id2label initializer_range is_decoder
    label2id license output_attentions output_hidden_states output_scores pad_token_id prefix
    problem_type return_dict return_dict_in_generate sep_token_id task_specific_params
    tie_encoder_decoder tokenizer_class torch_dtype torchscript transformers_version use_bfloat16
    use_cache

    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id
    forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
    num_beams num_return_sequences remove_invalid_values repetition_penalty suppress_tokens
    temperature tf_legacy_loss top_k top_p typical_p
"""
IRRELEVANT = frozenset(_IRRELEVANT.split())


class Rotary(Strict):
    """``rope_parameters`` of transformers 5, or ``rope_scaling`` of 4."""

    rope_type: Literal["default"] = "default"
    type: Literal["default"] = "default"  # its name in older files
    rope_theta: Base | None = None
    partial_rotary_factor: Fraction | None = None


class Quantization(Strict):
    """``quantization_config``: LLM.int8 of bitsandbytes, whatever its settings for activations."""

    quant_method: Literal["bitsandbytes"]
    load_in_8bit: Yes
    load_in_4bit: No = False
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: list[str] | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False
    llm_int8_has_fp16_weight: No = False
    bnb_4bit_compute_dtype: str | None = None
    bnb_4bit_quant_storage: str | None = None
    bnb_4bit_quant_type: str | None = None
    bnb_4bit_use_double_quant: bool = False

    @model_validator(mode="before")
    @classmethod
    def _without_private_fields(cls, data: Any) -> Any:
        # transformers writes each of the two switches twice, the second time with an underscore.
        if isinstance(data, dict):
            data = {k: v for k, v in data.items() if k not in ("_load_in_8bit", "_load_in_4bit")}
        return data


class ConfigFile(Strict):
    """What decides numbers. Defaults are transformers' own."""

    model_type: Literal["gpt_neox"]
    hidden_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Heads
    intermediate_size: Inner
    vocab_size: Rows
    max_position_embeddings: Positions
    layer_norm_eps: Epsilon = 1e-5
    head_dim: int | None = None
    hidden_act: Literal["gelu"] = "gelu"
    use_parallel_residual: Yes = True
    attention_bias: Yes = True
    tie_word_embeddings: No = False
    is_encoder_decoder: No = False
    add_cross_attention: No = False
    cross_attention_hidden_size: None = None
    pruned_heads: dict[str, list[int]] = Field(default_factory=dict, max_length=0)
    chunk_size_feed_forward: Annotated[int, Field(ge=0)] = 0  # the same sums in pieces
    quantization_config: Quantization | None = None

    rotary_pct: Fraction | None = None  # transformers 4
    rotary_emb_base: Base | None = None
    rope_scaling: Rotary | None = None
    rope_parameters: Rotary | None = None  # transformers 5
    partial_rotary_factor: Fraction | None = None
    rope_theta: Base | None = None

    @model_validator(mode="after")
    def _heads_are_whole(self) -> ConfigFile:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size}, which {self.num_attention_heads} "
                "(num_attention_heads) does not divide"
            )
        each = self.hidden_size // self.num_attention_heads
        if self.head_dim not in (None, each):
            raise ValueError(
                f"head_dim is {self.head_dim}, but hidden_size / num_attention_heads is {each}"
            )
        return self

    def rotary_base(self) -> float:
        """Base of the rotary frequencies; raises ValueError where the file says two things."""
        return self._one("rotary_emb_base", "rope_theta", DEFAULT_BASE)

    def rotary_fraction(self) -> float:
        """Share of each head that rotates."""
        return self._one("rotary_pct", "partial_rotary_factor", DEFAULT_FRACTION)

    def _one(self, old: str, new: str, default: float) -> float:
        """The value of a setting that has had several places.

        transformers 4 and 5 look at different ones: where two differ there is no right answer.
        Neither looks at ``new`` outside of the two groups, so there it may only repeat the value.
        """
        places = {
            old: getattr(self, old),
            f"rope_scaling.{new}": getattr(self.rope_scaling, new, None),
            f"rope_parameters.{new}": getattr(self.rope_parameters, new, None),
        }
        said: dict[str, float] = {
            place: value for place, value in places.items() if value is not None
        }
        said = said or {f"the default of {old}": default}
        if (loose := getattr(self, new)) is not None:
            said[new] = loose
        if len(set(said.values())) > 1:
            words = " and ".join(f"{place} {value:g}" for place, value in said.items())
            raise ValueError(f"{words} contradict each other")
        return next(iter(said.values()))


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json``; raises CheckpointError on anything that is not a Pythia."""
    return parse_config(read_json(path), str(path))


def parse_config(raw: Any, what: str = "config.json") -> ModelConfig:
    """A parsed ``config.json``; raises CheckpointError with the field at fault."""
    if isinstance(raw, dict):
        raw = {name: value for name, value in raw.items() if name not in IRRELEVANT}
    found = check(ConfigFile, raw, what)
    try:
        base, fraction = found.rotary_base(), found.rotary_fraction()
    except ValueError as error:
        raise CheckpointError(f"{what}: {error}") from None
    head_dim = found.hidden_size // found.num_attention_heads
    rotary_dims = int(head_dim * fraction)
    if rotary_dims % 2:
        raise CheckpointError(
            f"{what}: {fraction:g} of {head_dim} dimensions are {rotary_dims} that rotate, "
            "but they rotate in pairs"
        )
    return ModelConfig(
        num_layers=found.num_hidden_layers,
        hidden_size=found.hidden_size,
        num_heads=found.num_attention_heads,
        intermediate_size=found.intermediate_size,
        vocab_size=found.vocab_size,
        max_positions=found.max_position_embeddings,
        rotary_dims=rotary_dims,
        rotary_base=base,
        norm_eps=found.layer_norm_eps,
    )
