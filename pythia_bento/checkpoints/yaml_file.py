"""YAML from outside, read as plain data: no tags that run code, no aliases, one sentence if bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pythia_bento.checkpoints.strict import read_bytes
from pythia_bento.errors import CheckpointError, printable

MAX_YAML_BYTES = 16 << 20  # a lock of ten thousand models


MAX_DEPTH = 100

# libyaml's loader makes the same of a file, many times faster; not every build of PyYAML has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """What a YAML file says; raises CheckpointError, naming it."""
    data = read_bytes(path, MAX_YAML_BYTES)
    try:
        _require_plain(data)
        return yaml.load(data, _Loader)
    except Exception as error:  # odd tags and numbers end it with errors of many types
        told = printable(" ".join(str(error).split()) or type(error).__name__, most=300)
        raise CheckpointError(f"{path} cannot be read as YAML: {told}") from None


def _require_plain(data: bytes) -> None:
    """Raise for aliases, by which ten lines can stand for gigabytes, and for what is too deep."""
    depth = 0
    for event in yaml.parse(data, _Loader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which is not read here")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is more than {MAX_DEPTH} levels deep")
