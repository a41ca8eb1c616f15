"""Which models a server answers for: ``pythia-1b-deduped@*, bundled@step512``. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pythia_bento.catalog import ModelId, parse
from pythia_bento.errors import ModelNotFound, shown

MAX_PATTERNS = 64
_GLOB = re.compile(r"[A-Za-z0-9_.*?-]{1,200}")
_SHAPE = "must be ids or <name>@<revision with * and ?>, separated by commas"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Revisions of one model."""

    name: str  # as ``ModelId`` has it
    revision: str  # where * stands for any characters, ? for one

    def matches(self, model: ModelId) -> bool:
        """Whether an id is one of these."""
        return self.name == model.name and fnmatchcase(model.revision, self.revision)


def parse_patterns(text: str) -> tuple[Pattern, ...]:
    """Read patterns; raises ValueError with half a sentence, to go behind a setting's name."""
    if not text.strip():
        return ()
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_PATTERNS:
        raise ValueError(f"has {len(parts)} patterns; the limit is {MAX_PATTERNS}")
    return tuple(dict.fromkeys(_pattern(part) for part in parts))


def _pattern(text: str) -> Pattern:
    name, at, revision = text.partition("@")
    is_glob = at and ("*" in revision or "?" in revision)
    if is_glob and not _GLOB.fullmatch(revision):
        raise ValueError(f"{_SHAPE}; {shown(text)} is neither")
    try:
        model = parse(name if is_glob else text)
    except ModelNotFound as error:
        raise ValueError(f"{_SHAPE}; {error.message}") from None
    return Pattern(model.name, revision if is_glob else model.revision)


def ids_of(model: ModelId, revisions: Iterable[str | None], is_main: bool) -> tuple[str, ...]:
    """All ids by which these revisions of a model can be asked for, in their order.

    ``is_main`` is whether the model's bare name means them too.
    """
    ids = [f"{model.name}@{revision}" for revision in revisions if revision]
    ids += [model.name] if is_main else []
    if not model.is_bundled:  # as the hub writes them, with the owner
        ids += [id.replace(model.name, model.repository, 1) for id in ids]
    return tuple(dict.fromkeys(ids))
