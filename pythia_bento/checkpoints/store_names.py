"""Under what names and labels BentoML's store has a model."""

from __future__ import annotations

import hashlib
import re

from pythia_bento.catalog import ORGANISATION, ModelId

INT8 = "-int8"
_TAG_LENGTH = 63  # BentoML's limit for names
_DIGEST = 10  # hexadecimal digits
_PYTHIA = re.compile(r"pythia-(?:intervention-(?:long-)?)?([0-9]+(?:\.[0-9]+)?[mb])(-deduped)?")


def store_name(model: ModelId) -> str:
    """The name of a repository's models in BentoML's store, where the commit is the version.

    No two repositories share one: "--" is in no owner and no name, and where BentoML's letters or
    length do not hold the exact name, its hash is part of this one.
    """
    owner, _, name = model.repository.partition("/")
    whole = name if owner == ORGANISATION else f"{owner}--{name}"
    base = _in_bentomls_letters(whole)
    if base != whole or len(base + INT8) > _TAG_LENGTH:
        digest = hashlib.sha256(model.repository.encode()).hexdigest()[:_DIGEST]
        base = f"{base[: _TAG_LENGTH - len(f'-{digest}{INT8}')].rstrip('-._')}-{digest}"
    return base + INT8


def old_name(model: ModelId) -> str:
    """The name that versions up to 0.1 gave it, the same for all owners."""
    base = _in_bentomls_letters(model.repository.partition("/")[2])
    return base[: _TAG_LENGTH - len(INT8)].rstrip("-._") + INT8


def _in_bentomls_letters(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]", "-", text.lower())


def labels_of(model: ModelId) -> dict[str, str]:
    """What an id says about the model, for people who browse the store."""
    labels: dict[str, str] = {}
    if match := _PYTHIA.search(model.name):
        labels |= {"size": match[1], "variant": "deduped" if match[2] else "standard"}
    if model.claimed_step is not None:
        labels["step"] = str(model.claimed_step)
    return labels
