"""Activations as a task: what it may say, and the body that it is for an item."""

from __future__ import annotations

from typing import Any

import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.inside import ActivationsRequest, LensOf, ProjectOf
from pythia_bento.protocol.parsing import parse
from pythia_bento.sweep.inside_task import ActivationsTask
from tests.unit.sweep.fakes import spec

SITE = {"site": "blocks.*.hook_resid_post"}
TASK: dict[str, Any] = {
    **{"type": "activations", "max_tokens": 3, "stop": ["x"], "dtype": "bfloat16"},
    "capture": [
        {**SITE, "positions": {"from": 1, "to": -1}},
        {**SITE, "positions": [-1], "reduce": {"lens": {"top": 2, "tokens": [5]}}},
        {**SITE, "heads": [0], "reduce": {"project": [[1.0, 0.5]]}},
    ],
    "interventions": [{**SITE, "op": "add", "vector": [1.0, 2.0], "scale": 4.0}],
    "logits": {"tokens": [1, 2]},
    "structured_outputs": {"choice": ["a", "b"]},
}


def made(**fields: Any) -> ActivationsTask:
    task = spec(task={"type": "activations", **fields}).task
    assert isinstance(task, ActivationsTask)
    return task


def test_the_body_for_an_item() -> None:
    task = made(**TASK)
    body = parse(ActivationsRequest, task.body((5, 6), 10))
    assert (body.prompts, body.priority, body.seed, body.max_tokens) == (((5, 6),), 10, 0, 3)
    assert [one.reduce for one in body.capture] == [
        *(None, LensOf(2, (5,)), ProjectOf(((1.0, 0.5),))),
    ]
    assert [one.positions for one in body.capture] == [one.positions for one in task.capture]
    assert body.interventions[0].vector == (1.0, 2.0) and body.interventions[0].scale == 4.0
    assert (body.logits, body.dtype, body.stop) == (task.logits, "bfloat16", ("x",))
    assert body.structured_outputs == task.structured_outputs is not None
    assert parse(ActivationsRequest, made().body("a", -3)).prompts == ("a",)
    assert made().max_tokens == 0


def test_whatever_changes_rows_changes_the_key() -> None:
    keys = [
        spec(task={"type": "activations", **fields}).key
        for fields in (
            {},
            {"capture": [SITE]},
            {"capture": [{**SITE, "positions": "last"}]},
            {"capture": [SITE], "dtype": "float16"},
            {"logits": {"tokens": [1]}},
            {"seed": 1},
            {"interventions": [{**SITE, "op": "zero"}]},
        )
    ]
    assert len(set(keys)) == len(keys)
    assert spec(task=TASK).key == spec(task={**TASK, "seed": 0}).key


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n": 2}, "n must be 1"),
        ({"priority": 1}, "task.priority is not a field of this request"),
        ({"prompt_logprobs": 1}, "task.prompt_logprobs is not a field"),
        ({"capture": [{**SITE, "reduce": {"project": "v"}}]}, "project must be a list of numbers"),
        ({"interventions": [{**SITE, "op": "add", "vector": "v"}]}, "vector must be a list of num"),
        ({"interventions": [{**SITE, "op": "set", "from": {"prompt": 0}}]}, "from is not a field"),
        ({"capture": "x"}, "capture"),
        ({"prompts": ["a"]}, "prompts is not a field"),
        ({"format": "json"}, "format is not a field"),
    ],
)
def test_bad_tasks(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        made(**fields)
