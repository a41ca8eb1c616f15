"""``pythia.lock``: which bytes a model id stands for. YAML, written here, read by people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import yaml  # type: ignore[import-untyped]
from pydantic import Field, ValidationError

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints.files import Commit, Hashes, Strict
from pythia_bento.errors import CheckpointError

LOCK = Path("pythia.lock")
_HEADER = """\
# What each model id stands for, to the byte. Written by `pythia-bento lock`, compared by
# `pythia-bento verify`, honoured by `pull` and when a model is served. `files` are as the hub
# serves them; `int8`, where present, are the files that `pull` made of them.
"""


class PinnedModel(Strict):
    """One model id. A file that is not listed is not pinned by itself, only by the commit."""

    repository: str
    revision: str
    commit: Commit
    quantization: str = "int8"
    files: Hashes
    int8: Hashes = Field(default_factory=dict)


class Lock(Strict):
    """All pinned models, by the shortest id: ``pythia-1b-deduped@step3000``."""

    version: Literal[1] = 1
    models: dict[str, PinnedModel] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = LOCK) -> Lock:
        """An absent file is an empty lock; raises CheckpointError for one that makes no sense."""
        try:
            raw = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CheckpointError(f"{path}: {where}: {first['msg']}") from None

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
