"""Bodies that ask for the inside of a model: what they take, and the one sentence otherwise."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.inside import ActivationsRequest, LensOf, ProjectOf
from pythia_bento.protocol.interventions import Span
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.patching import MetricOf, PatchRequest

SITE = "blocks.*.hook_resid_post"
WHOLE: dict[str, Any] = {
    "model": "pythia-160m@step3000",
    "prompts": ["The Eiffel Tower is in", [5, 6]],
    "max_tokens": 0,
    "capture": [
        {"site": SITE, "positions": "last"},
        {"site": "blocks.7.attn.hook_pattern", "heads": [0, 3]},
        {"site": SITE, "positions": [-1], "reduce": {"lens": {"top": 5, "tokens": [7785]}}},
        {"site": SITE, "positions": {"from": 1}, "reduce": {"project": "probes"}},
        {"site": "blocks.{1..4}.mlp.hook_post", "neurons": [9, 8], "reduce": "mean"},
        {"site": "hook_embed", "reduce": {"project": [[0.5, 1], [1, 0]]}},
    ],
    "interventions": [
        {"site": "blocks.6.hook_resid_pre", "op": "add", "vector": "v", "scale": 4.0},
        {"site": "blocks.5.attn.hook_z", "op": "zero", "heads": [3]},
        {
            **{"site": "blocks.3.hook_resid_pre", "op": "set", "from": {"prompt": 0}},
            **{"positions": [4], "prompts": [1]},
        },
        {"site": "hook_embed", "op": "clamp", "vector": [1, 0.5], "low": -1, "high": 1e6},
    ],
    "logits": {"tokens": [7785, 5007], "positions": [-1]},
    "dtype": "float32",
    "format": "safetensors",
}
PATCH: dict[str, Any] = {
    "clean": "a",
    "corrupted": [5],
    "site": "blocks.*.hook_resid_pre",
    "over": ["layer", "head"],
    "metric": {"logit_diff": [5, " b"]},
}


def test_what_is_read_is_written_as_it_came() -> None:
    body = parse(ActivationsRequest, WHOLE)
    written = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert json.loads(json.dumps(written)) == WHOLE
    assert parse(ActivationsRequest, json.loads(json.dumps(written))) == body
    patch = parse(PatchRequest, PATCH)
    assert patch.model_dump(mode="json", exclude_unset=True) == PATCH


def test_what_fields_become() -> None:
    body = parse(ActivationsRequest, WHOLE)
    assert [item.positions for item in body.capture[:4]] == ["last", "all", (-1,), Span(1, None)]
    assert [item.reduce for item in body.capture[2:]] == [
        LensOf(5, (7785,)),
        ProjectOf("probes"),
        "mean",
        ProjectOf(((0.5, 1), (1, 0))),
    ]
    assert body.prompts == ("The Eiffel Tower is in", (5, 6))
    assert body.interventions[2].source and body.interventions[2].source.prompt == 0
    assert body.interventions[2].prompts == (1,)
    patch = parse(PatchRequest, PATCH)
    assert (patch.over, patch.metric) == ("head", MetricOf("logit_diff", (5, " b")))
    assert parse(PatchRequest, {**PATCH, "over": None}).over == "position"
    assert parse(PatchRequest, {**PATCH, "metric": {"logprob": " b"}}).metric.tokens == (" b",)


@pytest.mark.parametrize(("model", "body"), [(ActivationsRequest, WHOLE), (PatchRequest, PATCH)])
def test_the_schema_takes_what_the_body_takes(model: Any, body: dict[str, Any]) -> None:
    jsonschema_rs.Draft202012Validator(model.model_json_schema()).validate(body)


def with_capture(**fields: Any) -> dict[str, Any]:
    return {"capture": [{"site": SITE}, {"site": SITE, **fields}]}


def with_change(**fields: Any) -> dict[str, Any]:
    return {"interventions": [{"site": SITE, "op": "zero", **fields}]}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompts": None}, "prompts", "prompts is required"),
    *(
        ({"prompts": value}, "prompts", "prompts must be a list of 1 to 256 texts or lists of")
        for value in ([], "a", [""], ["a", 5], [[]], [[True]], ["a"] * 257, {"a": 1})
    ),
    ({"n": 2}, "n", "n must be 1, as what is captured is of one text, not 2"),
    ({"best_of": 2}, "best_of", "best_of must be"),
    ({"dtype": "float64"}, "dtype", "dtype must be 'float32', 'bfloat16' or 'float16', not 'fl"),
    ({"format": "npz"}, "format", "format must be 'safetensors' or 'json', not 'npz'"),
    ({"stream": True}, "stream", "stream is not a field of this request"),
    ({"capture": {}}, "capture", "capture must be a valid tuple"),
    ({"capture": [{"site": SITE}] * 65}, "capture", "capture must have at most 64 entries, not 65"),
    ({"capture": [5]}, "capture", "capture[0]"),
    ({"capture": [{}]}, "capture", "capture[0].site is required"),
    (with_capture(site="a" * 257), "capture", "capture[1].site "),
    (with_capture(layer=3), "capture", "capture[1].layer is not a field of this request"),
    *(
        (with_capture(positions=value), "capture", "capture[1].positions must be ")
        for value in ("some", 5, [], [1.0], [True], [2**31], {"at": 1}, {"from": 0.5}, [0] * 2049)
    ),
    (with_capture(heads=[]), "capture", "capture[1].heads must have at least 1 entries, not 0"),
    (with_capture(heads=[-1]), "capture", "capture[1].heads[0] must be greater than or equal to 0"),
    (with_capture(heads=[True]), "capture", "capture[1].heads[0] must be a valid integer"),
    (with_capture(neurons=[0] * 4097), "capture", "capture[1].neurons must have at most 4096"),
    *(
        (with_capture(reduce=value), "capture", 'capture[1].reduce must be "mean", "norm", {')
        for value in (
            *("max", 5, {}, {"lens": {}}, {"lens": {"top": 101}}, {"lens": {"top": -1}}),
            *({"lens": {"top": True}}, {"lens": {"tokens": [0] * 257}}, {"lens": {"tokens": [-1]}}),
            *({"lens": {"best": 5}}, {"lens": 5}, {"project": ""}, {"project": []}),
            *({"project": [[1], [1, 2]]}, {"project": [[1], 2]}, {"project": [[]]}),
            *({"project": [True]}, {"project": "a", "lens": {"top": 1}}, {"project": 5}),
            *({"project": [[1.0]] * 1025}, {"project": "a" * 257}),
        )
    ),
    ({"interventions": [{}]}, "interventions", "interventions[0].site is required"),
    (with_change(op="jump"), "interventions", "interventions[0].op must be 'add', 'set', 'scale'"),
    *(
        (with_change(vector=value), "interventions", "interventions[0].vector must be the name of")
        for value in (5, [], [True], ["1"], [[1.0]], "", "a" * 257, [0.5] * 16385)
    ),
    (with_change(scale=1e6 + 1), "interventions", "interventions[0].scale must be less than or"),
    (with_change(low=-1e7), "interventions", "interventions[0].low must be greater than or equal"),
    (with_change(high="1"), "interventions", "interventions[0].high must be a valid number"),
    (with_change(source={"prompt": 0}), "interventions", "interventions[0].source is not a field"),
    (
        with_change(**{"from": {"prompt": 256}}),
        "interventions",
        "interventions[0].from.prompt must be less than 256, not 256",
    ),
    (with_change(prompts=[]), "interventions", "interventions[0].prompts must have at least 1"),
    (
        {"interventions": [{"site": SITE, "op": "add", "vector": [0.5] * 16384}] * 5},
        "interventions",
        "interventions must have at most 65,536 numbers in its lists; send more as tensors",
    ),
    (
        {"interventions": [{"site": SITE, "op": "zero"}] * 257},
        "interventions",
        "interventions must have at most 256 entries, not 257",
    ),
    ({"logits": {"tokens": []}}, "logits", "logits.tokens must have at least 1 entries, not 0"),
    ({"logits": {"tokens": [5] * 1025}}, "logits", "logits.tokens must have at most 1024 entries"),
    ({"logits": {"tokens": [5], "positions": "x"}}, "logits", "logits.positions must be "),
]


@pytest.mark.parametrize(("changed", "param", "words"), WRONG)
def test_one_sentence_names_the_field(changed: dict[str, Any], param: str, words: str) -> None:
    check(ActivationsRequest, {"prompts": ["a"], **changed}, param, words)


@pytest.mark.parametrize(
    ("changed", "param", "words"),
    [
        ({"clean": None}, "clean", "clean is required"),
        ({"clean": []}, "clean", "clean must be a string or a list of token ids, and not empty"),
        ({"corrupted": 5}, "corrupted", "corrupted must be a string or a list of token ids"),
        *(
            ({"over": value}, "over", 'over must be ["layer", "position"] or ["layer", "head"]')
            for value in ("head", ["head", "layer"], ["layer", "neuron"], [], 5)
        ),
        *(
            ({"metric": value}, "metric", 'metric must be {"logit_diff": [a, b]} or {"logprob"')
            for value in (
                *(5, {}, {"logit_diff": [5]}, {"logit_diff": [5, True]}, {"logprob": -1}),
                *({"logprob": ""}, {"logprob": 5, "logit_diff": [5, 6]}, {"loss": 5}),
            )
        ),
        ({"priority": 21}, "priority", "priority must be less than or equal to 20, not 21"),
        ({"prompts": ["a"]}, "prompts", "prompts is not a field of this request"),
    ],
)
def test_patches_too(changed: dict[str, Any], param: str, words: str) -> None:
    check(PatchRequest, {**PATCH, **changed}, param, words)


def check(model: Any, body: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(model, body)
    error = caught.value
    assert (error.param, words in error.message) == (param, True), error.message
    assert "\n" not in error.message and len(error.message) < 300
