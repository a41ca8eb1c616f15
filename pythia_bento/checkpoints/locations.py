"""What a setting or an option names as the model to load: an id, or a directory."""

from __future__ import annotations

from pathlib import Path

from pythia_bento.catalog import ModelId, parse
from pythia_bento.errors import CheckpointError, ModelNotFound

_PATHS = ("/", "./", "../", "~")


def parse_location(text: str) -> ModelId | Path:
    """A model id, or the absolute path of a directory that exists.

    A path is written as one, with ``/``, ``./``, ``../`` or ``~`` in front: a directory that
    happens to lie about can stand for no model. Raises CheckpointError for a path that leads to no
    directory, and ModelNotFound.
    """
    if not (text.startswith(_PATHS) or text in (".", "..")):
        try:
            return parse(text)
        except ModelNotFound as error:
            raise ModelNotFound(error.message + path_hint(text), param=error.param) from None
    directory = _directory(text)
    if directory is None:
        raise CheckpointError(f"checkpoint directory does not exist: {text[:200]}")
    return directory


def path_hint(text: str) -> str:
    """What to add to an error about a name if there is a directory of that name, else nothing."""
    if _directory(f"./{text}") is None:
        return ""
    return f"; write ./{text[:200]} for the directory of that name"


def _directory(text: str) -> Path | None:
    try:
        directory = Path(text).expanduser()
        return directory.resolve() if directory.is_dir() else None
    except (OSError, RuntimeError, ValueError):
        return None  # a name too long, a home of nobody, a character that no path has
