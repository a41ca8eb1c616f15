"""What a setting or an option names as the model to load: an id, or a directory."""

from __future__ import annotations

from pathlib import Path

from pythia_bento.catalog import BUNDLED, ModelId, parse
from pythia_bento.errors import CheckpointError


def parse_location(text: str) -> ModelId | Path:
    """A model id, or the absolute path of a directory that exists.

    A directory wins over a model of its name, but for the bundled one. Raises CheckpointError for
    a path that leads to no directory, and ModelNotFound.
    """
    if text != BUNDLED and not text.startswith(f"{BUNDLED}@"):
        directory = _directory(text)
        if directory is not None:
            return directory
        if text.startswith(("/", ".", "~")):
            raise CheckpointError(f"checkpoint directory does not exist: {text[:200]}")
    return parse(text)


def _directory(text: str) -> Path | None:
    try:
        directory = Path(text).expanduser()
        return directory.resolve() if directory.is_dir() else None
    except (OSError, RuntimeError, ValueError):
        return None  # a name too long, a home of nobody, a character that no path has
