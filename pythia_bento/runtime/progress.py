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

_BYTES = "bytes"


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
        self._show(what, what, done, total, "")

    def bytes(self, what: str, done: int, total: int) -> None:
        """The same for bytes, which have a speed."""
        self._show(what, what, done, total, _BYTES)

    def rows(self, what: str, done: int, total: int) -> None:
        """The same for rows; ``what`` may be another each time, as there is one bar for them."""
        self._show("rows", what, done, total, "rows")

    def _show(self, bar: str, what: str, done: int, total: int, unit: str) -> None:
        if not self._tasks:
            self._progress.start()
        if bar not in self._tasks:
            self._tasks[bar] = self._progress.add_task(what, total=total, unit=unit)
        self._progress.update(self._tasks[bar], description=what, completed=done, total=total)

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
        return (self._bytes if task.fields["unit"] == _BYTES else self._number).render(task)


class _Speed(ProgressColumn):
    """Of bytes and rows; nothing for all else."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))
        self._speed = TransferSpeedColumn()

    def render(self, task: Task) -> Text:
        unit, speed = task.fields["unit"], task.finished_speed or task.speed
        if unit == _BYTES:
            return self._speed.render(task)
        return Text(f"{speed:,.0f} {unit}/s" if unit and speed else "", "progress.data.speed")


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
