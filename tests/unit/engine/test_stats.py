from __future__ import annotations

from dataclasses import replace

from pythia_bento.engine.stats import BATCH_SIZES, NUM_NUMBERS, EngineStats, StepSizes
from tests.unit.engine.toy import toy_engine
from tests.unit.runtime.toy_runner import ask


def test_numbers_of_stats_and_back() -> None:
    stats = toy_engine(64).stats()
    names = [name for name in EngineStats.__slots__ if name != "batch_sizes"]
    sizes = tuple(range(100, 101 + len(BATCH_SIZES)))
    stats = replace(stats, **{name: i for i, name in enumerate(names)}, batch_sizes=sizes)
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
