"""What is asked of the inside over gRPC is what is asked over HTTP; answers that make no sense."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pythia_bento.client import grpc_messages, http_messages
from pythia_bento.client.inside import Asked, activations_of, patch_of
from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.inside import ActivationsRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.patching import PatchRequest
from pythia_bento.server.grpc.inside_messages import activations_body, patch_body
from tests.unit.protocol.test_activations import file

SITE = "blocks.*.hook_resid_post"
ARRAY = np.arange(4, dtype=np.float32)
CAPTURES: list[Any] = [
    SITE,
    [{"site": SITE, "positions": word} for word in ("all", "last", "prompt", "generated")],
    {"site": SITE, "positions": [-1, 3]},
    {"site": SITE, "positions": {"from": -5, "to": 0}},
    {"site": SITE, "positions": {"to": 9}, "heads": [0, 7], "neurons": [5]},
    [{"site": SITE, "reduce": word} for word in ("mean", "norm")],
    {"site": SITE, "reduce": {"lens": {"top": 3}}},
    {"site": SITE, "reduce": {"lens": {"top": 0, "tokens": [0, 5]}}},
    {"site": SITE, "reduce": {"project": [1.5, 0]}},
    {"site": SITE, "reduce": {"project": [[1.5, 0.0], [2.0, -1e6]]}},
    {"site": SITE, "reduce": {"project": ARRAY}},
]
CHANGES: list[dict[str, Any]] = [
    {"op": "add", "vector": [0.1, 2], "scale": 0, "positions": "last"},
    {"op": "add", "vector": ARRAY, "heads": [1]},
    {"op": "set", "from": {"prompt": 0}, "prompts": [1, 2]},
    {"op": "clamp", "vector": "tensor0", "low": -0.5, "high": 0.0},
    {"op": "zero", "neurons": [0]},
]


def asked(capture: Any = SITE, **others: Any) -> Asked:
    fields = {"interventions": (), "logits": None, "dtype": "float32", "names": "transformer-lens"}
    fields |= {"model": None, "options": {}, "prompts": ["a", (5, 6)]} | others
    return activations_of(capture=capture, **fields)


async def same(question: Asked) -> None:
    sent = http_messages.activations(question).request
    body, stored = (sent["request"][1], sent["tensors"][1]) if question.tensors else (sent, b"")
    over_http = parse(ActivationsRequest, json.loads(body))
    request = grpc_messages.activations(question).request
    over_grpc = parse(ActivationsRequest, await activations_body(request))
    assert over_http == over_grpc
    assert request.tensors == stored


@pytest.mark.parametrize("capture", CAPTURES, ids=str)
async def test_captures(capture: Any) -> None:
    await same(asked(capture))


async def test_interventions() -> None:
    await same(asked(interventions=[{"site": SITE, **change} for change in CHANGES]))


async def test_the_rest() -> None:
    options = {"max_tokens": 3, "stop": "x", "seed": 7, "logit_bias": {5: -1.0}, "priority": -3}
    await same(asked(model="a@b", dtype="bfloat16", options=options))
    await same(asked(logits={"tokens": [0, 5], "positions": [-1]}))
    await same(asked(prompts="a", logits={"tokens": [7]}))


@pytest.mark.parametrize(
    ("over", "metric"),
    [
        (("layer", "position"), ("logit_diff", " a", 0)),
        (("layer", "head"), ("logprob", 5)),
        (("layer", "head"), {"logprob": " b"}),
    ],
)
def test_patches(over: tuple[str, str], metric: Any) -> None:
    question = patch_of("a b", [5, 6], SITE, over, metric, "toy", "transformer-lens")
    over_http = parse(PatchRequest, json.loads(http_messages.patch(question).request))
    assert parse(PatchRequest, patch_body(grpc_messages.patch(question).request)) == over_http


@pytest.mark.parametrize(
    ("capture", "words"),
    [
        ({"site": SITE, "depth": 1}, "capture[0] cannot be sent"),
        ([SITE, {"site": SITE, "heads": [-1]}], "capture[1] cannot be sent"),
        ({"site": SITE, "positions": {"by": 2}}, "capture[0] cannot be sent"),
        ({"site": SITE, "reduce": {"lens": {"depth": 1}}}, "capture[0] cannot be sent"),
        ({"site": SITE, "reduce": {}}, "capture[0] cannot be sent"),
    ],
)
def test_what_no_message_can_hold(capture: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grpc_messages.activations(asked(capture))
    assert words in caught.value.message


def parts() -> list[pb.ActivationsPart]:
    data = file()
    header = pb.TensorsHeader(model="toy", nbytes=len(data))
    return [
        pb.ActivationsPart(header=header),
        *(pb.ActivationsPart(data=bytes(data[at : at + 100])) for at in range(0, len(data), 100)),
        pb.ActivationsPart(summary=pb.ActivationsSummary()),
    ]


def test_parts_are_put_together() -> None:
    operation = grpc_messages.activations(asked())
    found, expected = (
        operation.result(iter(parts())),
        http_messages.activations(asked()).result(bytearray(file())),
    )
    assert [list(run) for run in found] == [list(run) for run in expected]
    for one, other in zip(found, expected, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("missing", [0, 1, -1])
def test_parts_that_are_missing(missing: int) -> None:
    some = parts()
    del some[missing]
    with pytest.raises(PythiaError, match="cannot be read"):
        grpc_messages.activations(asked()).result(iter(some))
