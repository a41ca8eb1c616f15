"""The Pythia suite as data: sizes, variants, training steps, and the grammar of model ids. No I/O.

A model id is ``<name>[@<revision>]``. The name is one of ``NAMES``, with or without
``EleutherAI/``, or ``bundled``; the revision is ``main`` (the default), a training step
(``step3000``), or a commit of 40 hexadecimal digits. Other branches are refused: a branch is a
moving name, and these are the only ones the suite documents.

Source of the numbers: the EleutherAI/pythia repository and the model cards.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pythia_bento.errors import ModelNotFound
from pythia_bento.model.config import ModelConfig

ORGANISATION = "EleutherAI"
BUNDLED = "bundled"
"""The checkpoint in this package; which steps it has is in its manifest, not here."""
MAIN = "main"

STEPS: tuple[int, ...] = (0, *(2**power for power in range(10)), *range(1000, 143_001, 1000))
"""The 154 training steps that every model of the suite keeps as branches ``step<N>``."""
TOKENS_PER_STEP = 2_097_152

MAX_POSITIONS = 2048
"""Of every size by the model cards; for 14m and 31m a checkpoint's own config has the last word."""


@dataclass(frozen=True, slots=True)
class Size:
    """One row of the suite's table."""

    layers: int
    hidden: int
    heads: int
    vocab: int = 50304  # rows of the embedding: padded so that it splits over training devices
    deduped: bool = True  # a variant trained on the deduplicated Pile exists
    seeds: int = 0  # variants -seed1 .. -seed<N> exist

    @property
    def config(self) -> ModelConfig:
        """The shape for ``model.GPTNeoX``; rotary embedding covers 25 % of each head."""
        return ModelConfig(
            num_layers=self.layers,
            hidden_size=self.hidden,
            num_heads=self.heads,
            intermediate_size=4 * self.hidden,
            vocab_size=self.vocab,
            max_positions=MAX_POSITIONS,
            rotary_dims=self.hidden // self.heads // 4,
        )


SIZES: dict[str, Size] = {
    "14m": Size(6, 128, 4, deduped=False, seeds=9),
    "31m": Size(6, 256, 8, deduped=False, seeds=9),
    "70m": Size(6, 512, 8, seeds=9),
    "160m": Size(12, 768, 12, seeds=9),
    "410m": Size(24, 1024, 16, seeds=9),
    "1b": Size(16, 2048, 8),
    "1.4b": Size(24, 2048, 16),
    "2.8b": Size(32, 2560, 32),
    "6.9b": Size(32, 4096, 32, vocab=50432),
    "12b": Size(36, 5120, 40, vocab=50688),
}


def _variants(size: str) -> list[str]:
    name, row = f"pythia-{size}", SIZES[size]
    deduped = [f"{name}-deduped"] if row.deduped else []
    return [name, *deduped, *(f"{name}-seed{seed}" for seed in range(1, row.seeds + 1))]


NAMES: dict[str, str] = {name: size for size in SIZES for name in _variants(size)}
"""Every model of the suite and its size, smallest first."""

PREQUANTISED: dict[str, str] = {
    "pythia-1b-deduped": "RichardErkhov/EleutherAI_-_pythia-1b-deduped-8bits",
}
"""Copies on the hub that are already in bitsandbytes' 8-bit format, by model name."""

_STEP = re.compile(r"step(0|[1-9][0-9]{0,8})", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ModelId:
    """A model and a revision, both valid; ``parse(str(id)) == id``."""

    name: str
    revision: str = MAIN

    def __str__(self) -> str:
        return self.name if self.revision == MAIN else f"{self.name}@{self.revision}"

    @property
    def repository(self) -> str | None:
        """Where the hub has it; None for the bundled checkpoint."""
        return None if self.name == BUNDLED else f"{ORGANISATION}/{self.name}"

    @property
    def step(self) -> int | None:
        """The training step if the revision says so; ``main`` and commits do not."""
        match = _STEP.fullmatch(self.revision)
        return int(match[1]) if match else None

    @property
    def is_commit(self) -> bool:
        """Whether the revision names bytes for good; branches move."""
        return _COMMIT.fullmatch(self.revision) is not None


def parse(text: str) -> ModelId:
    """Read a model id; raises ModelNotFound, which suggests the nearest right ones."""
    name, at, revision = text.partition("@")
    name = name.removeprefix(f"{ORGANISATION}/")
    if name != BUNDLED and name not in NAMES:
        raise _not_found("model", name, _nearest(name, [*NAMES, BUNDLED]))
    return ModelId(name, _revision(name, revision) if at else MAIN)


def config(name: str) -> ModelConfig:
    """The shape of a model of the suite; raises ModelNotFound."""
    found = parse(name)
    if found.name == BUNDLED:
        raise ModelNotFound("the shape of bundled is in its own config.json", param="model")
    return SIZES[NAMES[found.name]].config


def linear_weights(config: ModelConfig) -> int:
    """Parameters that 8-bit quantisation covers: qkv, dense, up and down of every layer."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return config.num_layers * (4 * hidden * hidden + 2 * hidden * inner)


def parameters(config: ModelConfig, embeddings: bool = True) -> int:
    """All parameters, or those outside the two embedding matrices."""
    hidden = config.hidden_size
    layer = _linear_rows(config) + 4 * hidden  # biases, two norms
    tables = 2 * config.vocab_size * hidden if embeddings else 0
    return tables + linear_weights(config) + config.num_layers * layer + 2 * hidden


def int8_bytes(config: ModelConfig) -> int:
    """Size in the 8-bit format: int8 linears, one fp32 scale a row, all else fp16."""
    linears = linear_weights(config)
    scales = 4 * config.num_layers * _linear_rows(config)
    return linears + scales + 2 * (parameters(config) - linears)


def _linear_rows(config: ModelConfig) -> int:
    """Output channels of a layer's four linears together."""
    return 5 * config.hidden_size + config.intermediate_size


def _revision(name: str, text: str) -> str:
    if text == MAIN or _COMMIT.fullmatch(text):
        return text
    step = _STEP.fullmatch(text)
    if step and (name == BUNDLED or int(step[1]) in STEPS):
        return text
    raise _not_found(f"{name} revision", text, _nearest_revisions(name, text))


def _nearest(text: str, known: Iterable[str]) -> list[str]:
    known = list(known)
    return difflib.get_close_matches(text, known, n=3) or difflib.get_close_matches(
        text, known, n=3, cutoff=0.0
    )


def _nearest_revisions(name: str, text: str) -> list[str]:
    """Steps around the number in ``text``; without one, what a revision may look like."""
    number = re.search(r"[0-9]{1,9}", text)
    if number is None or name == BUNDLED or re.fullmatch(r"[0-9a-fA-F]{7,}", text):
        return [MAIN, "step<N>", "a commit of 40 lower-case hexadecimal digits"]
    wanted = int(number[0])
    nearest = sorted(STEPS, key=lambda step: (abs(step - wanted), step))[:2]
    return [f"step{step}" for step in sorted(nearest)]


def _not_found(kind: str, text: str, nearest: list[str]) -> ModelNotFound:
    message = f"there is no {kind} {text[:100]!r}; the nearest are {', '.join(nearest)}"
    return ModelNotFound(message, param="model")
