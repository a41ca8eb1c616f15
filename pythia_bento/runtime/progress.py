"""Progress bars on stderr for anything that reports (what, done, total)."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text


class ProgressBars:
    """One bar for each thing that is reported; without a terminal only the last state is shown."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Amount(),
            _Speed(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=Console(file=cast(IO[str], _LossyStderr())),
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Set the bar of ``what``; may be called from any thread."""
        self._show(what, done, total, is_bytes=False)

    def bytes(self, what: str, done: int, total: int) -> None:
        """The same for bytes, which have a speed."""
        self._show(what, done, total, is_bytes=True)

    def _show(self, what: str, done: int, total: int, is_bytes: bool) -> None:
        if not self._tasks:
            self._progress.start()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, is_bytes=is_bytes)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tasks:
            self._progress.stop()


class _Amount(ProgressColumn):
    """How much of how much."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes, self._number = DownloadColumn(), MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        return (self._bytes if task.fields["is_bytes"] else self._number).render(task)


class _Speed(ProgressColumn):
    """Of bytes; nothing for all else."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))
        self._speed = TransferSpeedColumn()

    def render(self, task: Task) -> Text:
        return self._speed.render(task) if task.fields["is_bytes"] else Text()


class _LossyStderr:
    """Where there is no room for what is shown, nothing is shown: loading goes on."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)
