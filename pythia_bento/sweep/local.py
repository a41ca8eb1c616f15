"""Sweeps by runners of this process, of one shape after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pythia_bento.errors import CheckpointError, PythiaError
from pythia_bento.runtime.model_info import Progress
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import load_settings
from pythia_bento.sweep.at_hand import Together

NO_TIMEOUT = 1e7  # seconds: nobody waits for an answer


@contextmanager
def opened(
    part: Together, ids: Sequence[str], on_progress: Progress
) -> Iterator[PythiaRunner | dict[str, PythiaError]]:
    """A runner for the checkpoints of one shape, which has loaded one of ``ids``.

    Where none of these can be loaded, why not, by id. Raises SettingsError.
    """
    failed: dict[str, PythiaError] = {}
    for id in ids:
        settings = load_settings(
            {"model": id, "models": part.patterns, "request_timeout": NO_TIMEOUT}
        )
        try:
            runner = PythiaRunner.load(settings, on_progress)
        except CheckpointError as error:
            failed[id] = error
            continue
        with runner:
            yield runner
        return
    yield failed
