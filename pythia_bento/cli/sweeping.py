"""What ``pythia-bento sweep`` does, once its options were read."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from pythia_bento.catalog import MAIN
from pythia_bento.catalog import parse as parse_id
from pythia_bento.client import AsyncClient
from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.progress import ProgressBars
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.sweep.at_hand import AtHand, Together
from pythia_bento.sweep.events import Checkpoint, Done, Event, Failed, Row
from pythia_bento.sweep.files import Output, Recorder, begin
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.items import read_items
from pythia_bento.sweep.local import opened
from pythia_bento.sweep.parquet import arrow
from pythia_bento.sweep.remote import Remote
from pythia_bento.sweep.run import run
from pythia_bento.sweep.shards import By, Shard, merge
from pythia_bento.sweep.source import Facts, Source
from pythia_bento.sweep.spec import SweepSpec

SHOWN_SECONDS = 0.1  # between two looks at the bars
Asked = list[tuple[str, Facts | PythiaError]]  # by id


class Interrupted(PythiaError):
    """Ctrl-C: what was under way has been written."""

    code = "interrupted"


def sweep_into(
    directory: Path,
    names: Sequence[str],
    items: Path,
    *,
    steps: str | None,
    task: dict[str, Any],
    suffix: str,
    shard: str | None,
    shard_by: By,
    server: str | None,
    api_key: str | None,
    ray: str | None,
    plot: bool,
) -> None:
    """Compute what is missing; exits with 1 where something failed. Raises PythiaError, OSError."""
    part = Shard() if shard is None else Shard.parse(shard, shard_by)
    if suffix == "parquet":
        arrow()  # which is missed before anything is computed
    output = Output(directory, suffix, part)
    given = {"task": task, "steps": steps, "items": read_items(items)}
    sweeping = _Sweeping(parse(SweepSpec, given), output)
    if ray is not None:
        sweeping.on_ray(names, steps, ray)
    elif server is not None:
        asyncio.run(sweeping.there(names, steps, server, api_key))
    else:
        sweeping.here(names, steps)
    sweeping.report()
    if plot:
        plot_curves(directory)


def plot_curves(directory: Path) -> None:
    """Beside the tables; raises PythiaError, OSError."""
    from pythia_bento.sweep.plot import plot

    for path in plot(directory):
        click.echo(path)


def merge_parts(directory: Path) -> None:
    """Exits with 1 where something is missing; raises PythiaError, OSError."""
    found = list(merge(directory))
    lacking = [(one, lacks) for one, lacks in found if lacks]
    for one, lacks in lacking:
        click.echo(f"error: {one.model}: {lacks}", err=True)
    num_complete = len(found) - len(lacking)
    click.echo(f"{num_complete} of {len(found)} checkpoints are complete in {directory}")
    if lacking:
        raise click.exceptions.Exit(1)


class _Sweeping:
    """One run of the command."""

    def __init__(self, spec: SweepSpec, output: Output) -> None:
        self._spec, self._output = spec, output
        self._recorder = Recorder(output, spec)
        self._known = 0  # checkpoints whose files are there

    def here(self, names: Sequence[str], steps: str | None) -> None:
        """By runners of this process, one shape after the other."""
        at_hand = AtHand.of([parse_id(name).name for name in names])
        ids = ids_of(self._spec, names, steps, at_hand.steps)
        asked = [(id, at_hand.look(id)) for id in ids]
        left = self._begin(asked)
        for part in at_hand.together([id for id, facts in asked if isinstance(facts, Facts)]):
            if missing := [id for id in part.ids if id in left]:
                self._part(part, missing)

    async def there(
        self, names: Sequence[str], steps: str | None, url: str, api_key: str | None
    ) -> None:
        """By a server."""
        try:
            client = AsyncClient(url, api_key=api_key)
        except ValueError as error:
            raise InvalidRequest(f"--server: {error}", param="server") from None
        async with client:
            source = await Remote.of(client)
            shelf = {name: await source.steps(name) for name in map(_bare, names)}
            ids = ids_of(self._spec, names, steps, shelf.__getitem__)
            left = self._begin(list(zip(ids, await source.look(ids), strict=True)))
            if left:
                await self._record(ids, source, len(left))

    def on_ray(self, names: Sequence[str], steps: str | None, address: str) -> None:
        """By all machines of a Ray cluster."""
        from pythia_bento.sweep.ray.cluster import connected
        from pythia_bento.sweep.ray.job import run_on_ray

        with connected(address, [_bare(name) for name in names]) as machines:
            ids = ids_of(self._spec, names, steps, machines.steps)
            left = self._begin([(id, machines.look(id)) for id in ids])
            if left:
                events = run_on_ray(
                    self._of(ids),
                    machines,
                    self._is_done,
                    self._recorder.items,
                    folder=self._output.directory,
                )
                asyncio.run(self._take(events, len(left)))

    def report(self) -> None:
        """What became of it; exits with 1 where something failed."""
        recorder = self._recorder
        for id, error in recorder.failed.items():
            click.echo(f"error: {id}: {' '.join(error.message.split())}", err=True)
        if recorder.num_bad_rows:
            click.echo(
                f"warning: {recorder.num_bad_rows} rows have an error in place of the rest",
                err=True,
            )
        click.echo(
            f"{recorder.num_done} checkpoints, {recorder.num_rows} rows in "
            f"{self._output.directory}; {self._known} were there already"
        )
        if recorder.failed:
            raise click.exceptions.Exit(1)

    def _begin(self, asked: Asked) -> set[str]:
        """Ids of what is to be computed here."""
        begin(self._output, self._spec, asked)
        left = set()
        for id, facts in asked:
            if isinstance(facts, PythiaError):
                if self._output.shard.has(id):
                    self._recorder.failed[id] = facts
            elif self._output.is_done(self._spec.key, id, facts.weights):
                self._known += self._output.shard.has(facts.weights)
            else:
                left.add(id)
        return left

    def _part(self, part: Together, missing: Sequence[str]) -> None:
        with ProgressBars() as bars, opened(part, missing, bars) as runner:
            if isinstance(runner, PythiaRunner):
                asyncio.run(self._record(part.ids, Here(runner), len(missing)))
            else:
                self._recorder.failed |= runner

    async def _record(self, ids: Iterable[str], source: Source, missing: int) -> None:
        events = run(self._of(ids), source, skip=self._is_done, items=self._recorder.items)
        await self._take(events, missing)

    def _of(self, ids: Iterable[str]) -> SweepSpec:
        known = tuple(id for id in ids if id not in self._recorder.failed)
        return self._spec.model_copy(update={"models": known})

    def _is_done(self, one: Checkpoint) -> bool:
        return self._output.is_done(self._spec.key, one.model, one.weights)

    async def _take(self, events: AsyncGenerator[Event, None], missing: int) -> None:
        """All of them to the files."""
        recorder = self._recorder
        with _Bars(missing, len(recorder.items)) as bars, _Interrupts() as interrupts:
            try:
                async with aclosing(events):
                    async for event in events:
                        recorder.record(event)
                        bars.show(event)
                        if interrupts.count and isinstance(event, (Done, Failed)):
                            raise Interrupted("interrupted; the same command goes on")
            finally:
                recorder.close()


def _bare(name: str) -> str:
    return parse_id(name).name


def ids_of(
    spec: SweepSpec, names: Sequence[str], steps: str | None, there: Callable[[str], set[int]]
) -> list[str]:
    """Of all names, in order, each once; raises InvalidRequest and ModelNotFound."""
    ids: list[str] = []
    for name in names:
        model = parse_id(name)
        if "@" not in name:
            ids += spec.step_ids(model.name, there(model.name))
        elif steps is None:
            ids.append(name if model.revision == MAIN else str(model))
        else:
            raise InvalidRequest(f"--steps is for models without a revision, not {name}")
    return list(dict.fromkeys(ids))


class _Interrupts:
    """Counts Ctrl-C; the second one ends at once what runs in this loop."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Interrupts:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._loop.add_signal_handler(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.remove_signal_handler(signal.SIGINT)

    def _on_signal(self) -> None:
        self.count += 1
        if self.count == 1:
            click.echo("ending after this checkpoint; Ctrl-C again ends at once", err=True)
        elif self._task is not None:
            self._task.cancel()


class _Bars:
    """Checkpoints and rows, so far."""

    def __init__(self, checkpoints: int, items: int) -> None:
        self._bars = ProgressBars()
        self._checkpoints, self._items = checkpoints, items
        self._done = self._rows = 0
        self._doing, self._shown = "", 0.0

    def __enter__(self) -> _Bars:
        self._bars.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.__exit__(*exception)

    def show(self, event: Event) -> None:
        """As often as somebody can see it."""
        if isinstance(event, Row):
            self._rows += 1
            if self._doing.startswith("loading"):
                self._doing = self._doing.replace("loading", "rows of", 1)
            if time.monotonic() - self._shown < SHOWN_SECONDS:
                return
        elif isinstance(event, Checkpoint):
            self._doing = f"loading {event.model}"
        elif isinstance(event, (Done, Failed)):
            self._done += 1
        self._shown = time.monotonic()
        self._bars("checkpoints", self._done, self._checkpoints)
        self._bars.rows(self._doing or "rows", self._rows, self._checkpoints * self._items)
