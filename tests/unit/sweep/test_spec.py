from __future__ import annotations

from typing import Any

import pytest

from pythia_bento.errors import InvalidRequest, ModelNotFound
from pythia_bento.protocol.parsing import parse
from pythia_bento.sweep.spec import (
    MAX_ITEMS,
    ExtractTask,
    GenerateTask,
    ScoreTask,
    SweepRequest,
    SweepSpec,
    check_rows,
)

ITEM = {"prompt": "Once upon"}
STEPS = {0, 64, 256, 3000}


def spec(**fields: Any) -> SweepSpec:
    return parse(SweepSpec, {"items": [ITEM], **fields})


def test_what_is_not_given_has_defaults() -> None:
    made = spec()
    assert (made.steps, made.priority, made.task) == ("all", 10, ScoreTask())
    assert made.bare_name("bundled@step64") == "bundled"


@pytest.mark.parametrize(
    ("task", "made"),
    [
        ("score", ScoreTask()),
        ({"tokens": True}, ScoreTask(tokens=True)),
        ({"type": "extract", "share": True}, ExtractTask(share=True)),
        ({"type": "generate", "max_tokens": 3, "n": 1}, GenerateTask(max_tokens=3, n=1)),
    ],
)
def test_tasks(task: Any, made: Any) -> None:
    assert spec(task=task).task == made


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"items": []}, "items"),
        ({"items": [ITEM, {"prompt": []}]}, "prompt must be"),
        ({"items": [{"prompt": "a", "text": "b"}]}, "items[0].text is not a field"),
        ({"items": [{"prompt": "a", "id": "x" * 257}]}, "items[0].id"),
        ({"task": "translate"}, "task"),
        ({"task": {"type": "extract", "tokens": 0}}, "task.extract.tokens"),
        ({"task": {"type": "generate", "n": 2}}, "task.n must be 1"),
        ({"task": {"type": "generate", "priority": 2}}, "task.priority is not a field"),
        ({"task": {"type": "generate", "prompt_logprobs": 0}}, "task.prompt_logprobs is not a"),
        ({"priority": 21}, "priority must be less than or equal to 20"),
        ({"models": ["bundled"], "model": "bundled"}, "models goes without model and steps"),
        ({"models": []}, "models"),
        ({"models": ["bundled"] * 2049}, "models"),
        ({"steps": [0] * 2049}, "steps has 2049 entries, but the limit is 2048"),
        ({"steps": 7}, "steps"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        spec(**fields)
    assert words in raised.value.message


def test_a_server_takes_so_many_items() -> None:
    parse(SweepRequest, {"items": [ITEM] * MAX_ITEMS})
    with pytest.raises(InvalidRequest) as raised:
        parse(SweepRequest, {"items": [ITEM] * (MAX_ITEMS + 1)})
    assert raised.value.param == "items"
    assert len(spec(items=[ITEM] * (MAX_ITEMS + 1)).items) == MAX_ITEMS + 1


def test_a_server_tells_so_many_rows() -> None:
    check_rows(1000, 1000)
    with pytest.raises(InvalidRequest, match=r"2,048 items at 489 checkpoints are 1,001,472 rows"):
        check_rows(2048, 489)


@pytest.mark.parametrize(
    ("steps", "ids"),
    [
        ("all", ["step0", "step64", "step256", "step3000"]),
        ("log", ["step0", "step64", "step256"]),
        ([256, 0, 7], ["step0", "step7", "step256"]),
        ("0:100:50", ["step0", "step50", "step100"]),
    ],
)
def test_all_and_log_mean_what_is_there_and_numbers_themselves(steps: Any, ids: list[str]) -> None:
    found = spec(steps=steps).step_ids("bundled", STEPS)
    assert found == [f"bundled@{id}" for id in ids]


def test_steps_of_the_suite_are_those_that_were_pulled() -> None:
    name = "pythia-14m"
    assert spec(steps="all").step_ids(name, {3000, 1}) == [f"{name}@step1", f"{name}@step3000"]
    assert spec(steps="log").step_ids(name, {3000, 1}) == [f"{name}@step1"]
    with pytest.raises(InvalidRequest, match="no step of pythia-14m is here"):
        spec(steps="all").step_ids(name, ())
    with pytest.raises(InvalidRequest, match="has no step 3"):
        spec(steps=[3]).step_ids(name, {3})


def test_a_model_is_a_bare_name() -> None:
    assert spec(model="EleutherAI/pythia-14m").bare_name("bundled") == "pythia-14m"
    with pytest.raises(InvalidRequest, match="without a revision, not bundled@step0"):
        spec(model="bundled@step0").bare_name("bundled")
    with pytest.raises(ModelNotFound, match="there is no model"):
        spec(model="pythia-15m").bare_name("bundled")
    with pytest.raises(InvalidRequest, match="model is required"):
        spec().bare_name("./somewhere")


def test_the_key_is_of_what_decides_rows() -> None:
    key = spec().key
    assert spec(priority=0, steps="log").key == spec(models=["bundled@step0"]).key == key
    assert spec(task={"type": "score", "tokens": False}).key == key
    others = [
        spec(task={"tokens": True}),
        spec(items=[ITEM, ITEM]),
        spec(items=[{**ITEM, "id": "a"}]),
        spec(items=[{**ITEM, "continuation": " a"}]),
        spec(items=[{"prompt": [5]}]),
        spec(task="extract"),
        spec(task="generate"),
        spec(task={"type": "generate", "seed": 1}),
    ]
    assert len({key, *(other.key for other in others)}) == len(others) + 1
    assert len(key) == 64
