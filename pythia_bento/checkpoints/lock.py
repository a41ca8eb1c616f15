"""``pythia.lock``: which bytes a model id stands for. YAML, written here, read by people."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import Field, ValidationError, field_validator

from pythia_bento.catalog import ModelId, parse
from pythia_bento.checkpoints.files import Commit, Hashes, Repository, Revision, stamp
from pythia_bento.checkpoints.strict import Strict, first_fault
from pythia_bento.checkpoints.yaml_file import read_yaml
from pythia_bento.errors import CheckpointError, ModelNotFound

LOCK = Path("pythia.lock")
_log = logging.getLogger(__name__)
_HEADER = """\
# What each model id stands for, to the byte. Written by `pythia-bento lock`, compared by
# `pythia-bento verify`, honoured by `pull` and when a model is served. `files` are as the hub
# serves them; `int8`, where present, are the files that `pull` made of them.
"""


class PinnedModel(Strict):
    """One model id. A file that is not listed is not pinned by itself, only by the commit."""

    repository: Repository
    revision: Revision
    commit: Commit
    quantization: Literal["int8"] = "int8"
    files: Hashes
    int8: Hashes = Field(default_factory=dict)


class Lock(Strict):
    """All pinned models, by the shortest id: ``pythia-1b-deduped@step3000``."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    models: dict[str, PinnedModel] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _ids_are_what_they_pin(cls, models: dict[str, PinnedModel]) -> dict[str, PinnedModel]:
        for id, pin in models.items():
            try:
                model = parse(id)
            except ModelNotFound as error:
                raise ValueError(error.message) from None
            if (model.repository, model.revision) != (pin.repository, pin.revision):
                whole = f"{pin.repository}@{pin.revision}"
                raise ValueError(f"{id[:200]!r} pins {whole}, which has another id")
            if str(model) != id:
                raise ValueError(f"{id[:200]!r} must be written {str(model)!r}")
        return models

    @classmethod
    def read(cls, path: Path = LOCK) -> Lock:
        """An absent file is an empty lock; raises CheckpointError for one that makes no sense."""
        if not os.path.lexists(path):
            return cls()
        raw = read_yaml(path)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            field, problem = first_fault(error)
            raise CheckpointError(f"{path}: {field or 'it'}: {problem}") from None

    def get(self, model: ModelId) -> PinnedModel | None:
        """The pin of exactly this id, or of the commit that it names."""
        if model.is_commit:
            pins = (pin for pin in self.models.values() if pin.repository == model.repository)
            return next((pin for pin in pins if pin.commit == model.revision), None)
        return self.models.get(str(model))

    def pinning(self, model: ModelId, pin: PinnedModel) -> Lock:
        """A lock in which ``model`` stands for ``pin``."""
        return Lock(models=dict(sorted({**self.models, str(model): pin}.items())))

    def write(self, path: Path = LOCK) -> None:
        """Replace ``path`` at once."""
        raw = self.model_dump(exclude_none=True)
        for pin in raw["models"].values():
            if not pin["int8"]:
                del pin["int8"]
        text = yaml.safe_dump(raw, sort_keys=False, default_flow_style=None, width=1000)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(_HEADER + text)
        partial.replace(path)


class LockFile:
    """``pythia.lock`` of the working directory, read again when it is another file."""

    def __init__(self) -> None:
        """Raises CheckpointError for one that makes no sense."""
        self._stamp = stamp(LOCK)
        self._lock = Lock.read()

    def now(self) -> Lock:
        """What it says; while it makes no sense, what it said before, and a line in the log."""
        if (now := stamp(LOCK)) != self._stamp:
            self._stamp = now
            try:
                self._lock = Lock.read()
            except CheckpointError as error:
                _log.warning("%s; what it said before holds", error.message)
        return self._lock
