"""YAML from outside, read as plain data: no tags that run code, no aliases, one sentence if bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pythia_bento.checkpoints.strict import read_bytes
from pythia_bento.errors import CheckpointError, printable

MAX_YAML_BYTES = 16 << 20  # a lock of ten thousand models


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Without aliases, by which a file of ten lines can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which is not read here")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """What a YAML file says; raises CheckpointError, naming it."""
    data = read_bytes(path, MAX_YAML_BYTES)
    try:
        return yaml.load(data, _Plain)
    except Exception as error:  # odd tags and numbers end it with errors of many types
        told = printable(" ".join(str(error).split()) or type(error).__name__, most=300)
        raise CheckpointError(f"{path} cannot be read as YAML: {told}") from None
