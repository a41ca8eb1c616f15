"""The Pythia suite as data: sizes, models, training steps, and the grammar of model ids. No I/O.

A model id is ``<name>[@<revision>]``. The name is one of ``MODELS``, with or without
``EleutherAI/``, or ``bundled``, or ``<owner>/<name>`` of anyone else's repository. The revision is
``main`` (the default), a training step (``step3000``), or a commit of 40 hexadecimal digits. Other
branches of the suite are refused: a branch is a moving name, and these are the only ones that the
suite documents. What other people's repositories and the bundled checkpoint have is not known
here, so for them any name that a branch can have will do.

Sources: the EleutherAI/pythia repository and the cards of the models on the hub. Of the models
``-v0`` the cards give 143 evenly spaced checkpoints, from step1000 on. The interventions go on
from a model of the suite with other pronouns (Biderman et al. 2023, arXiv:2304.01373, section 4.1):
for its last 21 billion tokens, the long one for its last 63.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest

from pythia_bento.errors import ModelNotFound
from pythia_bento.model.config import ModelConfig

ORGANISATION = "EleutherAI"
BUNDLED = "bundled"
"""The checkpoint in this package; which steps it has is in its manifest, not here."""
MAIN = "main"

EVEN_STEPS: tuple[int, ...] = tuple(range(1000, 143_001, 1000))
STEPS: tuple[int, ...] = (0, *(2**power for power in range(10)), *EVEN_STEPS)
"""The 154 training steps that a model of the suite keeps as branches ``step<N>``."""
LAST_STEP = STEPS[-1]  # what every model's main is said to be
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
    deduped: bool = True  # also trained on the deduplicated Pile; both also exist as -v0
    seeds: int = 0  # variants -seed1 .. -seed<N> exist
    split_seeds: int = 0  # and as many where only the data's order or the first weights differ
    interventions: tuple[str, ...] = ()  # kinds of pythia-<kind>-<size>-deduped

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
    "70m": Size(6, 512, 8, seeds=9, interventions=("intervention",)),
    "160m": Size(12, 768, 12, seeds=9, split_seeds=3),
    "410m": Size(24, 1024, 16, seeds=9, interventions=("intervention",)),
    "1b": Size(16, 2048, 8),
    "1.4b": Size(24, 2048, 16, interventions=("intervention", "intervention-long")),
    "2.8b": Size(32, 2560, 32),
    "6.9b": Size(32, 4096, 32, vocab=50432, interventions=("intervention",)),
    "12b": Size(36, 5120, 40, vocab=50688),
}

_INTERVENED_STEPS = {"intervention": EVEN_STEPS[-10:], "intervention-long": EVEN_STEPS[-30:]}


@dataclass(frozen=True, slots=True)
class Model:
    """One repository of the suite."""

    size: str
    steps: tuple[int, ...] = STEPS  # branches step<N>


def _models(size: str) -> Iterator[tuple[str, Model]]:
    name, row = f"pythia-{size}", SIZES[size]
    data = [name, f"{name}-deduped"] if row.deduped else [name]
    seeds = [f"-seed{seed}" for seed in range(1, row.seeds + 1)]
    for kind in ("-data", "-weight"):
        seeds += [f"{kind}-seed{seed}" for seed in range(1, row.split_seeds + 1)]
    for trained in (*data, *(f"{name}{seed}" for seed in seeds)):
        yield trained, Model(size)
    if row.deduped:
        yield from ((f"{trained}-v0", Model(size, EVEN_STEPS)) for trained in data)
    for kind in row.interventions:
        yield f"pythia-{kind}-{size}-deduped", Model(size, _INTERVENED_STEPS[kind])


MODELS: dict[str, Model] = {name: model for size in SIZES for name, model in _models(size)}
"""Every model of the suite, smallest first."""

PREQUANTISED: dict[str, str] = {
    "pythia-1b-deduped": "RichardErkhov/EleutherAI_-_pythia-1b-deduped-8bits",
}
"""Copies on the hub that are already in bitsandbytes' 8-bit format, by model name."""

_ID = re.compile(r"(?:(?P<owner>[^@/]*)/)?(?P<name>[^@]*)(?:@(?P<revision>.*))?", re.DOTALL)
# Letters that are looked at: none that is right has as many, by what follows. The pattern takes a
# tenth of a second for three million, in which no other thread runs.
MAX_ID = 512
_STEP = re.compile(r"step(0|[1-9][0-9]{0,8})")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
# What the hub takes as an owner or a name; beside that it refuses "--", ".." and ".git" at the end.
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class ModelId:
    """A model and a revision, both valid; ``parse(str(id)) == id``."""

    name: str  # of the suite, ``bundled``, or ``<owner>/<name>``
    revision: str = MAIN

    def __str__(self) -> str:
        return self.name if self.revision == MAIN else f"{self.name}@{self.revision}"

    def at(self, revision: str) -> ModelId:
        """The same model at another revision."""
        return ModelId(self.name, revision)

    @property
    def is_bundled(self) -> bool:
        """Whether the model comes with the package."""
        return self.name == BUNDLED

    @property
    def repository(self) -> str:
        """Where the hub has it; raises ModelNotFound for the bundled checkpoint."""
        if self.is_bundled:
            raise ModelNotFound(f"{self} comes with the package, not from a hub", param="model")
        return self.name if "/" in self.name else f"{ORGANISATION}/{self.name}"

    @property
    def step(self) -> int | None:
        """The training step that the revision names; None for ``main`` and commits."""
        match = _STEP.fullmatch(self.revision)
        return int(match[1]) if match else None

    @property
    def claimed_step(self) -> int | None:
        """The same, and for ``main`` the last step, which it is said to be."""
        return LAST_STEP if self.revision == MAIN else self.step

    @property
    def is_commit(self) -> bool:
        """Whether the revision names bytes for good; branches move."""
        return _COMMIT.fullmatch(self.revision) is not None


def parse(text: str) -> ModelId:
    """Read a model id; raises ModelNotFound, which suggests the nearest right ones."""
    match = _ID.fullmatch(text[:MAX_ID])
    assert match is not None  # any text has these parts
    owner, name, revision = match["owner"], match["name"], match["revision"]
    whole = name if owner is None else f"{owner}/{name}"
    if owner in (None, ORGANISATION):
        known = name in MODELS or whole == BUNDLED
    else:
        name, known = whole, is_repository(whole)
    if not known:
        raise _not_found("model", whole, [*nearest(name, [*MODELS, BUNDLED]), "<owner>/<name>"])
    return ModelId(name, MAIN if revision is None else _revision(name, revision))


def config(name: str) -> ModelConfig:
    """The shape of a model of the suite; raises ModelNotFound."""
    found = parse(name)
    if found.name not in MODELS:
        raise ModelNotFound(f"the shape of {name} is in its own config.json", param="model")
    return SIZES[MODELS[found.name].size].config


MAX_COMPARED = 128
"""Names that a wrong one is compared with, letter by letter."""


def nearest(text: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names most like ``text``, the likest first; some even where none is like it."""
    text, names = text[:100], list(dict.fromkeys(known))  # the search takes quadratic time
    if len(names) > MAX_COMPARED:  # of thousands, as a shelf may have, those that begin like it
        names = nlargest(MAX_COMPARED, names, key=lambda name: _beginning(text, name))
    alike = difflib.get_close_matches(text, names, n=count)
    return alike or difflib.get_close_matches(text, names, n=count, cutoff=0.0)


def _beginning(one: str, other: str) -> int:
    """How many letters of two texts are the same up to the first that is not."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def nearest_steps(wanted: int, steps: Iterable[int], count: int = 3) -> list[str]:
    """The revisions of those ``steps`` that are nearest to one that is not among them."""
    found = sorted(steps, key=lambda step: (abs(step - wanted), step))[:count]
    return [f"step{step}" for step in sorted(found)]


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


def is_repository(text: str) -> bool:
    """Whether the hub could have a repository ``<owner>/<name>`` of this name."""
    owner, _, name = text.partition("/")
    parts = _PART.fullmatch(owner) and _PART.fullmatch(name)
    return bool(parts) and not ("--" in text or ".." in text or name.endswith(".git"))


def _revision(name: str, text: str) -> str:
    found = ModelId(name, text)
    if name in MODELS:
        known = text == MAIN or found.is_commit or found.step in MODELS[name].steps
    else:
        known = _BRANCH.fullmatch(text) is not None
    if not known:
        raise _not_found(f"{name} revision", text, _nearest_revisions(name, text))
    return text


def _nearest_revisions(name: str, text: str) -> list[str]:
    """Steps around the number in ``text``; without one, what a revision may look like."""
    number = re.search(r"[0-9]{1,9}", text)
    if number is None or name not in MODELS or re.fullmatch(r"[0-9a-fA-F]{7,}", text):
        return [MAIN, "step<N>", "a commit of 40 lower-case hexadecimal digits"]
    return nearest_steps(int(number[0]), MODELS[name].steps)


def _not_found(kind: str, text: str, suggestions: list[str]) -> ModelNotFound:
    message = f"there is no {kind} {text[:100]!r}; the nearest are {', '.join(suggestions)}"
    return ModelNotFound(message, param="model")
