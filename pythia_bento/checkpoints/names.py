"""One revision of one repository: as people write it, as the hub and as the store know it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pythia_bento import catalog
from pythia_bento.errors import ModelNotFound

LAST_STEP = f"step{catalog.STEPS[-1]}"  # what every model's main is said to be

_FOREIGN = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w.-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_STEP = re.compile(r"step(\d+)", re.ASCII)
_PYTHIA = re.compile(r"pythia-(\d+(?:\.\d+)?[mb])(-deduped)?", re.ASCII)
_TAG_LENGTH = 63  # BentoML's limit for names
_INT8 = "-int8"


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model of the suite, or someone's copy of one, at a revision."""

    repo_id: str  # "EleutherAI/pythia-1b-deduped"
    revision: str  # a branch or a commit

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read a model id of the catalog, or ``<owner>/<name>[@<revision>]`` of anyone else.

        Raises ModelNotFound, also for the bundled checkpoint, which no hub has.
        """
        owner, slash, _ = text.partition("/")
        if slash and owner != catalog.ORGANISATION:
            match = _FOREIGN.fullmatch(text)
            if match is None:
                raise ModelNotFound(f"{text[:200]!r} is not a model id", param="model")
            return cls(match["repo"], match["revision"] or catalog.MAIN)
        known = catalog.parse(text)
        if known.repository is None:
            raise ModelNotFound(f"{known} comes with the package, not from a hub", param="model")
        return cls(known.repository, known.revision)

    def at(self, revision: str) -> ModelName:
        """The same repository at another revision."""
        return ModelName(self.repo_id, revision)

    @property
    def name(self) -> str:
        """Without EleutherAI, with any other owner."""
        return self.repo_id.removeprefix(f"{catalog.ORGANISATION}/")

    @property
    def id(self) -> str:
        """The shortest id."""
        return self.name if self.revision == catalog.MAIN else f"{self.name}@{self.revision}"

    @property
    def is_commit(self) -> bool:
        """Whether the revision names bytes for good."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def step(self) -> int | None:
        """The training step that the revision claims."""
        if self.revision == catalog.MAIN:
            return catalog.STEPS[-1]
        match = _STEP.fullmatch(self.revision)
        return int(match[1]) if match else None

    @property
    def store_name(self) -> str:
        """Name in BentoML's store, where the commit is the version."""
        base = re.sub(r"[^a-z0-9._-]", "-", self.repo_id.partition("/")[2].lower())
        return base[: _TAG_LENGTH - len(_INT8)].strip("-._") + _INT8

    @property
    def labels(self) -> dict[str, str]:
        """What the name says about the model, for people who browse the store."""
        labels: dict[str, str] = {}
        if match := _PYTHIA.search(self.repo_id):
            labels |= {"size": match[1], "variant": "deduped" if match[2] else "standard"}
        if self.step is not None:
            labels["step"] = str(self.step)
        return labels
