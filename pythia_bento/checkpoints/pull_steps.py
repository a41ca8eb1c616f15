"""Many pulls side by side: some download while another is quantised, and one ends alone."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints.hub_errors import DiskFull
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.plan import Plan, Step
from pythia_bento.checkpoints.pull import Progress, Pull, Pulled, Turns
from pythia_bento.errors import CheckpointError, PythiaError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step."""

    model: ModelId
    pulled: Pulled | None
    error: PythiaError | None = None


class NotBegun(CheckpointError):
    """Nothing was tried, because something before had failed that fails for all."""


def pull_steps(
    plan: Plan, lock: Lock, jobs: int, on_progress: Progress, on_bytes: Progress
) -> Iterator[Outcome]:
    """Pull what is planned, ``jobs`` downloads at a time; each step as soon as it is done.

    At most ``jobs`` + 1 originals are on the disk. Steps with the same weights follow each other,
    so that the second finds those of the first. When the disk is full no other step is begun.
    """
    run = _Run(plan, lock, jobs, on_progress, on_bytes)
    with ThreadPoolExecutor(jobs + 1, "pull") as pool:
        try:
            for future in as_completed([pool.submit(run.pull, each) for each in _groups(plan)]):
                yield from future.result()
        except BaseException:
            run.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _groups(plan: Plan) -> list[list[Step]]:
    groups: dict[object, list[Step]] = defaultdict(list)
    for step in plan.steps:
        groups[step.weights].append(step)
    return list(groups.values())


class _Stopped(Exception):
    """Somebody pressed Ctrl-C, or a pull failed in a way that nobody foresaw."""


class _Run:
    """What the threads share."""

    def __init__(
        self, plan: Plan, lock: Lock, jobs: int, on_progress: Progress, on_bytes: Progress
    ) -> None:
        self._plan, self._lock = plan, lock
        self._on_progress, self._on_bytes = on_progress, on_bytes
        # One at a time is quantised, with all cores: another would take its memory and no time off.
        self._turns = Turns(threading.Semaphore(jobs), threading.Lock())
        self._mutex = threading.Lock()
        self._bytes = {step.model: (step.there, step.size) for step in plan.steps}
        self._num_done = 0
        self._is_stopped = self._is_full = False

    def stop(self) -> None:
        """End the pulls under way at their next report."""
        self._is_stopped = True

    def pull(self, steps: list[Step]) -> list[Outcome]:
        """One after the other, whatever becomes of those before."""
        outcomes = []
        for step in steps:
            outcomes.append(self._pull(step))
            self._count(step.model)
        return outcomes

    def _pull(self, step: Step) -> Outcome:
        self._go_on()
        if self._is_full:
            return Outcome(step.model, None, NotBegun(f"{step.model} was not begun"))
        try:
            return Outcome(step.model, self._job(step).run())
        except PythiaError as error:
            self._is_full |= isinstance(error, DiskFull)
            return Outcome(step.model, None, error)

    def _job(self, step: Step) -> Pull:
        return Pull(
            step.model,
            step.source,
            self._lock.get(step.model),
            self._plan.twins,
            lambda what, done, total: self._go_on(),
            partial(self._report, step.model),
            self._turns,
        )

    def _go_on(self) -> None:
        if self._is_stopped:
            raise _Stopped

    def _report(self, model: ModelId, what: str, done: int, total: int) -> None:
        self._go_on()
        with self._mutex:
            self._bytes[model] = done, total
            self._show_bytes()

    def _show_bytes(self) -> None:
        done, total = (sum(each) for each in zip(*self._bytes.values(), strict=True))
        if total:
            self._on_bytes(f"downloading {self._plan.model.name}", done, total)

    def _count(self, model: ModelId) -> None:
        """A step has ended: what it did not fetch is not left any more."""
        with self._mutex:
            self._num_done += 1
            self._bytes[model] = (self._bytes[model][1],) * 2
            self._show_bytes()
            steps = f"steps of {self._plan.model.name}"
            self._on_progress(steps, self._num_done, len(self._plan.steps))
