"""Where pulls work: folders for what is unfinished, one process at a time, and full disks."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
from huggingface_hub import constants
from safetensors import SafetensorError

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints import hub_errors, store

_log = logging.getLogger(__name__)


def downloads(model: ModelId, commit: str) -> Path:
    """Where downloads wait; in HF_HOME, which people move to where there is room."""
    return Path(constants.HF_HOME) / "pythia-bento" / model.repository.replace("/", "--") / commit


def require_space(directory: Path, size: int) -> None:
    """Fail before a download rather than late in it."""
    directory.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in directory.iterdir())
    free = shutil.disk_usage(directory).free
    if size - there > free:
        raise hub_errors.DiskFull(
            f"the disk is full: {directory} has room for {free / 1e6:,.1f} MB, and "
            f"{(size - there) / 1e6:,.1f} MB are to be downloaded"
        )


@contextmanager
def exclusive(model: ModelId, commit: str) -> Iterator[None]:
    """One process at a time for a model, at any stage of a pull."""
    lock = store.pulling(model, commit)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.warning("another process is pulling %s; waiting for it", str(model))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Say in one sentence why files cannot be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors has the system's error only in its words.
        told = re.search(r"os error (\d+)", str(error))
        number = int(told[1]) if told else getattr(error, "errno", None)
        raise hub_errors.not_written(number, f"{what} cannot be stored: {error}") from None
