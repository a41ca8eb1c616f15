"""Sweeps over the bundled steps: rows are those of each step alone, to the last bit."""

from __future__ import annotations

import asyncio
import json
import random
import re
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pythia_bento.catalog import int8_bytes
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.errors import CheckpointError, ModelNotFound
from pythia_bento.handlers.score import score
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from pythia_bento.sweep.events import Checkpoint, End, Failed, Row
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepSpec
from tests.amounts import rest_long
from tests.integration.sweeping import (
    NAMES,
    copy_step,
    damage,
    rows,
    sequences,
    steps,
    swept,
    texts,
)
from tests.tools import tool
from tests.unit.runtime.toy_runner import settled

__all__ = ["steps"]  # a fixture

GB = int8_bytes(load_checkpoint("bundled").config) / 1e9
DOCS = Path(__file__).parents[2] / "docs"


def settings(places: float = 7.2, **more: Any) -> Settings:
    return Settings(device="cpu", models_gb=places * GB, kv_cache_gb=0.05, **more)


@pytest.mark.no_cover
@pytest.mark.parametrize("case", rest_long([(2.2, 40)], [(2.2, 100), (7.2, 100)]), ids=str)
def test_rows_are_those_of_six_runners_asked_one_by_one(case: tuple[float, int]) -> None:
    places, count = case
    items = texts(count)
    with PythiaRunner.load(settings(places)) as runner:
        events = asyncio.run(swept(runner, task={"tokens": True}, items=items))
        settled(runner)
    assert events[-1] == End(6, 0)
    for index, name in enumerate(NAMES):
        found = rows(events, index)
        with PythiaRunner.load(Settings(model=name, models="", device="cpu")) as alone:
            fields = ({k: v for k, v in item.items() if k != "id"} for item in items)
            wanted: list[Any] = asyncio.run(score(alone, list(fields)))
        assert [row.id for row in found] == [item["id"] for item in items]
        for row, scored in zip(found, wanted, strict=True):
            assert (row.logprob, row.num_tokens) == (scored["logprob"], scored["num_tokens"])
            assert row.is_greedy == scored["is_greedy"]
            tokens = [(token["id"], token["logprob"]) for token in scored["tokens"]]
            assert row.token_ids is not None and row.logprobs is not None
            assert list(zip(row.token_ids, row.logprobs, strict=True)) == tokens


@pytest.mark.long
def test_held_out_loss_by_step_is_the_one_of_the_page() -> None:
    trainer = tool("train_bundled")
    root = load_checkpoint("bundled").path.parent
    tokenizer = trainer.Tokenizer.from_file(str(root / "step3000" / "tokenizer.json"))
    seed = json.loads((root / "manifest.json").read_text())["seed"]
    windows = trainer.held_out_tokens(seed, tokenizer).view(-1, trainer.CONTEXT).tolist()
    with PythiaRunner.load(settings()) as runner:
        events = asyncio.run(swept(runner, items=[{"prompt": ids} for ids in windows]))
    table = (DOCS / "bundled.md").read_text()
    page = re.findall(r"^\| (\d+) \| [\d,]+ \| ([\d.]+) \|$", table, re.MULTILINE)
    assert [f"bundled@step{step}" for step, _ in page] == NAMES
    for index, (step, loss) in enumerate(page):
        found = rows(events, index)
        assert [row.num_tokens for row in found] == [trainer.CONTEXT - 1] * len(windows)
        mean = -sum(row.logprob or 0 for row in found) / sum(row.num_tokens or 0 for row in found)
        assert mean == pytest.approx(float(loss), abs=5e-4), step


@pytest.mark.parametrize("count", rest_long([8], [120]))
def test_extraction_is_what_generation_says(count: int) -> None:
    """Of what each step itself continues with, half of it with a token that is another."""
    prompts, rng = sequences(count, 32), random.Random(4)
    params = SamplingParams(max_tokens=32, temperature=0.0, ignore_eos=True)
    with PythiaRunner.load(settings()) as runner:

        async def look() -> None:
            for name in ("bundled@step64", "bundled@step512", "bundled@step3000"):
                served = await runner.served(name)
                asked = [Request(new_request_id(), tuple(ids), params) for ids in prompts]
                made = [answer[0].token_ids for answer in await served.complete(asked)]
                wanted, items = [], []
                for number, (ids, own) in enumerate(zip(prompts, made, strict=True)):
                    place = rng.randrange(32) if number % 2 else 32
                    other = [*own[:place], *(own[place] % 900 + 5 for _ in own[place : place + 1])]
                    items.append({"prompt": ids + other + own[place + 1 :]})
                    wanted.append(place)
                task = {"type": "extract", "share": True}
                found = rows(await swept(runner, models=[name], items=items, task=task), 0)
                assert [row.matched for row in found] == wanted
                assert [row.extractable for row in found] == [place == 32 for place in wanted]
                assert [row.share for row in found] == [
                    1.0 if place == 32 else 31 / 32 for place in wanted
                ]

        asyncio.run(look())
        settled(runner)


def test_equal_weights_under_two_names_are_computed_once(steps: Path) -> None:
    copy_step(steps, "step64", "step128")
    with PythiaRunner.load(settings()) as runner:
        events = asyncio.run(swept(runner, items=texts(5), task={"tokens": True}))
        loads = runner.stats().group.loads_disk
    found = {e.model: e for e in events if isinstance(e, Checkpoint)}
    assert list(found) == [NAMES[0], NAMES[1], "bundled@step128", *NAMES[2:]]
    first, second = found["bundled@step64"], found["bundled@step128"]
    assert (first.computed, second.computed) == (True, False)
    assert (first.same_weights, second.same_weights) == (
        ("bundled@step128",),
        ("bundled@step64",),
    )
    assert (first.weights, second.step) == (second.weights, 128)
    told = [rows(events, one.index) for one in (first, second)]
    assert [(row.item, row.logprobs) for row in told[0]] == [
        (row.item, row.logprobs) for row in told[1]
    ]
    assert loads == 5  # of seven names; one was there from the beginning
    assert events[-1] == End(7, 0)


def test_a_missing_and_a_damaged_step_are_two_errors(steps: Path) -> None:
    damage(steps, "step256")
    with PythiaRunner.load(settings()) as runner:
        wanted = [0, 64, 128, 256, 512, 1000, 3000]
        events = asyncio.run(swept(runner, items=texts(5), steps=wanted))
        settled(runner)
    missing, damaged = [e for e in events if isinstance(e, Failed)]
    assert (missing.model, damaged.model) == ("bundled@step128", "bundled@step256")
    assert isinstance(missing.error, ModelNotFound)
    assert isinstance(damaged.error, CheckpointError)
    assert "bundled@step256 will not be served: model.safetensors" in damaged.error.message
    assert len([e for e in events if isinstance(e, Row)]) == 5 * 5
    assert events[-1] == End(5, 2)


def test_a_reader_that_leaves_in_the_middle_leaves_nothing_behind() -> None:
    with PythiaRunner.load(settings()) as runner:

        async def leave() -> None:
            spec = parse(SweepSpec, {"items": texts(400)})
            async with aclosing(run(spec, Here(runner))) as events:
                told = 0
                async for event in events:
                    told += isinstance(event, Row)
                    if told == 450:  # of the second checkpoint
                        return

        asyncio.run(leave())
        settled(runner)
