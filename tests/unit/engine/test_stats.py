from __future__ import annotations

from dataclasses import fields, replace

from pythia_bento.engine.stats import (
    BATCH_SIZES,
    LOAD_SECONDS,
    NUM_NUMBERS,
    EngineStats,
    GroupStats,
    LoadTimes,
    StepSizes,
    total,
)
from tests.unit.engine.toy import toy_engine
from tests.unit.runtime.toy_runner import ask


def test_numbers_of_stats_and_back() -> None:
    stats = toy_engine(64).stats()
    names = [name for name in EngineStats.__slots__ if name not in ("batch_sizes", "group")]
    sizes = tuple(range(100, 101 + len(BATCH_SIZES)))
    times = len(LOAD_SECONDS) + 1
    singles_of_group = range(50, 48 + len(fields(GroupStats)))
    group = GroupStats(
        *singles_of_group,
        load_times_disk=tuple(range(200, 200 + times)),
        load_times_host=tuple(range(300, 300 + times)),
    )
    singles = {name: i for i, name in enumerate(names)}
    stats = replace(stats, **singles, batch_sizes=sizes, group=group)
    numbers = stats.numbers()
    assert len(numbers) == NUM_NUMBERS == len(set(numbers))
    assert EngineStats.of(list(numbers)) == stats


def test_steps_by_size() -> None:
    sizes = StepSizes()
    for sequences in (1, 2, 3, 4, 512, 513, 1000):
        sizes.add(sequences)
    assert (sizes.steps, sizes.sequences) == (7, 2035)
    assert sizes.counts == (1, 1, 2, 0, 0, 0, 0, 0, 0, 1, 2)


def test_an_engine_counts_its_steps() -> None:
    engine = toy_engine(64)
    engine.generate([ask((1, 2), max_tokens=3), ask((3, 4), max_tokens=1)])
    stats = engine.stats()
    assert sum(stats.batch_sizes) == stats.steps == 3
    assert (stats.batch_sizes[:2], stats.step_sequences) == ((2, 1), 4)


def test_engines_that_share_a_device_are_counted_together() -> None:
    one = replace(toy_engine(64).stats(), steps=3, running=1, blocks_used=7, batch_sizes=(1,) * 11)
    found = total([one, replace(one, steps=4)], GroupStats(evictions=2))
    assert (found.steps, found.running, found.group.evictions) == (7, 2, 2)
    assert (found.blocks_used, found.blocks_total) == (7, 64), "of the pool, which they share"
    assert found.batch_sizes == (2,) * 11


def test_loads_by_what_they_took() -> None:
    times = LoadTimes()
    for seconds in (0.001, 0.01, 0.02, 0.3, 1000.0):
        times.add(seconds)
    assert times.count == sum(times.counts) == 5
    assert times.counts[:2] == (2, 1) and times.counts[-1] == 1
    assert times.microseconds == 1_000_331_000
