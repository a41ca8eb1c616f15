"""Engines that take turns at the same tasks; one that dies is a row that says how."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.common import machine, shapes
from bench.common.report import DECODE_1, DECODE_8, LOAD, PREFILL, SCORE, Result
from bench.peers.process import Ended, Engine, Process
from pythia_bento import catalog

TRIED = 32  # texts at most by which a peer's best batch is found


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed: decode steps of a batch, one prefill where ``new`` is 0, or texts scored."""

    key: str
    name: str
    batch: int = 1
    prompt: int = 128
    new: int = 0
    texts: int = 0

    def tokens(self) -> int:
        """Computed in the measured time."""
        return self.texts * self.prompt or self.batch * self.new or self.prompt


def tasks(model: str, texts: int | None = None) -> tuple[Task, ...]:
    """All of them; ``texts`` are scored, by default some that take a minute."""
    if texts is None:
        texts = 64 if model == "pythia-1b" else 256
    return (
        Task("decode-1", DECODE_1, batch=1, prompt=64, new=32),
        Task("decode-8", DECODE_8, batch=8, prompt=64, new=32),
        Task("prefill", PREFILL),
        Task("score", SCORE, texts=texts),
    )


@dataclass(slots=True)
class Race:
    """One model's engines. A context manager: their processes end with it."""

    model: str
    checkpoint: Path
    rounds: int
    results: list[Result] = field(default_factory=list)
    _running: list[Process] = field(default_factory=list)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Race:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def enter(self, engine: Engine) -> None:
        """Load the model into a process of its own."""
        if not engine.is_installed:
            self.results.append(Result(self.model, engine.name, LOAD))
            return
        say(f"{engine.name}: loading")
        log = self.checkpoint.with_name(f"{self.model}-{engine.variant}.log")
        with self._reported(engine, LOAD):
            process = self._stack.enter_context(Process(engine, self.checkpoint, log))
            peak = round(process.peak_mb)
            self.results.append(Result(self.model, engine.name, LOAD, peak_mb=peak))
            self._running.append(process)

    def run(self, task: Task) -> None:
        """In turn, ``rounds`` times after one to warm up."""
        probe = machine.BandwidthProbe()
        runners = [Runner(p, task) for p in self._running if p.engine.batches or not task.texts]
        for seed in range(self.rounds + 1):
            say(f"{self.model}: {task.name}, round {seed} of {self.rounds}")
            for runner in runners:
                with self._reported(runner.process.engine, task.name):
                    runner.round(seed, probe)
            runners = [runner for runner in runners if runner.process in self._running]
        self.results += [runner.result(self.model) for runner in runners if runner.samples]

    @contextlib.contextmanager
    def _reported(self, engine: Engine, task: str) -> Iterator[None]:
        """One that ends in here gets a row, and no further turn."""
        try:
            yield
        except Ended as ended:
            say(f"{engine.name}: {ended}")
            self.results.append(Result(self.model, engine.name, task, ended=str(ended)))
            self._running = [p for p in self._running if p.engine != engine]


@dataclass(slots=True)
class Runner:
    """One engine at one task."""

    process: Process
    task: Task
    batch: int = 0
    samples: list[tuple[float, float]] = field(default_factory=list)  # seconds, GB/s before

    def round(self, seed: int, probe: machine.BandwidthProbe) -> None:
        """The first one warms up, and finds the best batch."""
        if seed == 0:
            self.batch = self._best_batch() if self.task.texts else self.task.batch
        bandwidth = probe()
        seconds = self._seconds(self.batch, self.task.texts, seed)
        if seed > 0:
            self.samples.append((seconds, bandwidth))

    def _best_batch(self) -> int:
        batches = self.process.engine.batches
        if len(batches) == 1:
            return batches[0]
        texts = min(TRIED, self.task.texts)
        times = {batch: self._seconds(batch, texts, seed=batch) for batch in batches}
        return min(times, key=times.__getitem__)

    def _seconds(self, batch: int, texts: int, seed: int) -> float:
        task = self.task
        return self.process.seconds(
            batch=batch, prompt=task.prompt, new=task.new, texts=texts, seed=seed
        )

    def result(self, model: str) -> Result:
        """Medians of the rounds."""
        seconds = statistics.median(s for s, _ in self.samples)
        bandwidth = statistics.median(b for _, b in self.samples)
        step, tokens = seconds / (self.task.new or 1), self.task.tokens()
        least = weight_bytes(model, self.process.engine) / (bandwidth * 1e9)
        return Result(
            model,
            self.process.engine.name,
            self.task.name,
            batch=self.batch or None,
            tokens_per_s=round(tokens / seconds, 2),
            ms_a_step=round(step * 1e3, 3),
            probe_gb_s=round(bandwidth, 1),
            percent_of_limit=round(least / step * 100, 1) if self.task.new else None,
            rounds=tuple(round(tokens / s, 2) for s, _ in self.samples),
            probes=tuple(round(b, 1) for _, b in self.samples),
        )


def weight_bytes(model: str, engine: Engine) -> float:
    """What an engine reads for each token."""
    config = catalog.config(model)
    linears = catalog.linear_weights(config) * engine.linear_bytes
    return linears + shapes.head_weights(config) * engine.head_bytes


def measure(
    model: str, engines: Sequence[Engine], chosen: Sequence[Task], cache: Path, rounds: int
) -> list[Result]:
    """All engines at all tasks, over one random checkpoint."""
    checkpoint = cache / model
    say(f"{model}: random checkpoint in {checkpoint}")
    shapes.write_checkpoint(model, checkpoint)
    with Race(model, checkpoint, rounds) as race:
        for engine in engines:
            race.enter(engine)
        for task in chosen:
            race.run(task)
        return race.results


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
