"""What ``/v1/activations`` and the ordinary API refuse of the inside, and in which words."""

from __future__ import annotations

import random
from typing import Any

import httpx
import numpy as np
import pytest

from pythia_bento.runtime.runner import PythiaRunner
from tests.amounts import amounts
from tests.fuzz.structures import mutated
from tests.integration.inside import MAX_TENSORS, WIDTH, post, reached

PRE, Z, POST = "blocks.1.hook_resid_pre", "blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"
V = np.ones(WIDTH, np.float32)
TENSORS = {
    **{"v": V, "short": V[:7], "nan": V * np.float32("nan"), "large": V * 2e6, "none": 0 * V},
    **{"rows": np.ones((3, WIDTH), np.float32), "heads": np.ones((4, 32), np.float32)},
}


def capture(site: str, **fields: Any) -> dict[str, Any]:
    return {"capture": [{"site": "hook_embed"}, {"site": site, **fields}]}


def change(site: str, op: str = "zero", **fields: Any) -> dict[str, Any]:
    first = {"site": PRE, "op": "zero", "heads": None}
    return {"interventions": [first, {"site": site, "op": op, **fields}]}


SITES = (
    "sites are hook_embed, blocks.*.hook_resid_pre, blocks.*.attn.hook_q, blocks.*.attn.hook_k, "
    "blocks.*.attn.hook_v, blocks.*.attn.hook_pattern, blocks.*.attn.hook_z, "
    "blocks.*.hook_attn_out, blocks.*.mlp.hook_post, blocks.*.hook_mlp_out, "
    "blocks.*.hook_resid_post, ln_final.hook_normalized"
)
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (
        capture("blocks.3.hook_resid_post"),
        "capture[1].site",
        "capture[1].site is 'blocks.3.hook_resid_post', but the model's layers are 0 to 2",
    ),
    (
        capture("blocks.1.hook_resid_mid"),
        "capture[1].site",
        "capture[1].site is 'blocks.1.hook_resid_mid', which is no site of a model with a "
        f"parallel residual; {SITES}",
    ),
    (capture("blocks.{2..1}.hook_resid_pre"), "capture[1].site", "but the model's layers are 0"),
    (capture("layers.0"), "capture[1].site", "capture[1].site is 'layers.0', which is no site; "),
    (
        capture("hook_embed"),
        "capture[1].site",
        "capture[1].site makes the tensor '0:hook_embed', which capture[0] makes too; ask for it "
        "once, or in two requests",
    ),
    (capture(PRE, heads=[0]), "capture[1].heads", "blocks.1.hook_resid_pre has no heads"),
    (capture(Z, heads=[4]), "capture[1].heads", "holds 4, but must hold integers from 0 to 3"),
    (capture(Z, heads=[1, 1]), "capture[1].heads", "capture[1].heads names one twice"),
    (capture(Z, neurons=[1]), "capture[1].neurons", "blocks.1.attn.hook_z has no neurons"),
    (capture(POST, neurons=[512]), "capture[1].neurons", "holds 512, but must hold integers from"),
    (
        capture(PRE, positions=[9]),
        "capture[1].positions",
        "capture[1].positions holds 9, but the prompt has 4 tokens",
    ),
    (capture(PRE, positions=[-5]), "capture[1].positions", "holds -5, but the prompt has 4 tokens"),
    (
        capture(PRE, reduce={"project": "w"}),
        "capture[1].reduce.project",
        "capture[1].reduce.project is 'w', which is no tensor of this request",
    ),
    (capture(PRE, reduce={"project": "short"}), "capture[1].reduce.project", "are 128 wide"),
    (
        capture(PRE, reduce={"project": "nan"}),
        "capture[1].reduce.project",
        "capture[1].reduce.project 'nan' holds a value that is not finite",
    ),
    (capture(Z, reduce={"lens": {"top": 1}}), "capture[1].reduce", "no place in the residual"),
    (
        capture("blocks.0.attn.hook_pattern", reduce="mean"),
        "capture[1].reduce",
        "blocks.0.attn.hook_pattern is not reduced",
    ),
    (
        capture(PRE, reduce={"lens": {"tokens": [5000]}}),
        "capture[1].reduce.lens.tokens",
        "holds 5000, but token ids are integers from 0 to ",
    ),
    ({"logits": {"tokens": [5000]}}, "logits.tokens", "logits.tokens holds 5000, but token ids"),
    (
        change("blocks.0.attn.hook_pattern"),
        "interventions[1].site",
        "interventions[1].site is blocks.0.attn.hook_pattern, which can be read and not changed",
    ),
    (change("ln_final.hook_normalized"), "interventions[1].site", "can be read and not changed"),
    (
        change(PRE, "add", vector="short"),
        "interventions[1].vector",
        "interventions[1].vector 'short' has shape [7], but blocks.1.hook_resid_pre is 128 wide",
    ),
    (change(PRE, "add", vector=[0.5]), "interventions[1].vector", "vector has shape [1], but bl"),
    (
        change(Z, "add", vector="v", heads=[1]),
        "interventions[1].vector",
        "has shape [128], but what is selected of blocks.1.attn.hook_z is 32 wide",
    ),
    (
        change(PRE, "add", vector="nan"),
        "interventions[1].vector",
        "interventions[1].vector 'nan' holds a value that is not finite",
    ),
    (
        change(PRE, "add", vector="large"),
        "interventions[1].vector",
        "interventions[1].vector 'large' holds a value that is beyond 1e6",
    ),
    (change(PRE, "add", vector=[2e6] * 128), "interventions[1].vector", "that is beyond 1e6"),
    (change(PRE, "add", vector=[10**400] * 128), "interventions[1].vector", "not finite"),
    (change(PRE, "add", vector="w"), "interventions[1].vector", "is 'w', which is no tensor of"),
    (
        change(PRE, "set", vector="rows"),
        "interventions[1].vector",
        "interventions[1].vector has 3 rows, but 4 positions in prompt 0",
    ),
    (
        change(PRE, "set", vector="rows", positions="generated"),
        "interventions[1].positions",
        "must be in the prompt where each has values of its own",
    ),
    (change(PRE, "project_out", vector="none"), "interventions[1].vector", "needs a direction"),
    (change(PRE, "add"), "interventions[1].vector", "vector is required by add"),
    (change(PRE, "set"), "interventions[1].vector", "vector is required by set"),
    (change(PRE, vector="v"), "interventions[1].vector", "vector is nothing that zero takes"),
    (change(PRE, scale=2), "interventions[1].scale", "scale is nothing that zero takes"),
    (change(PRE, "scale", low=2), "interventions[1].low", "low is nothing that scale takes"),
    (change(PRE, "clamp", vector="v"), "interventions[1].low", "low or high is required by clamp"),
    (change(PRE, "clamp", vector="v", low=2, high=1), "interventions[1].low", "at most high, 1"),
    (change(PRE, "add", **{"from": {"prompt": 0}}), "interventions[1].from", "nothing that add"),
    (
        change(PRE, "set", vector="v", **{"from": {"prompt": 0}}),
        "interventions[1].from",
        "interventions[1].from goes without vector",
    ),
    (
        change(PRE, "set", **{"from": {"prompt": 2}}),
        "interventions[1].from.prompt",
        "interventions[1].from.prompt is 2, but prompts has 2",
    ),
    (
        change(PRE, "set", prompts=[1, 0], **{"from": {"prompt": 0}}),
        "interventions[1].from.prompt",
        "is 0, but must be below the prompts it changes, of which 0 is one",
    ),
    (change(PRE, prompts=[2]), "interventions[1].prompts", "holds 2, but prompts has 2"),
    (
        change(PRE, "set", **{"from": {"prompt": 0}}),
        "interventions[1].positions",
        "interventions[1].positions are 2 in prompt 1 and 4 in prompt 0; they must be the same "
        "number",
    ),
    ({"prompts": ["a", [5000]]}, "prompts[1]", "prompts[1] holds 5000, but token ids are"),
    ({"prompts": ["a", [5] * 513]}, "prompts[1]", "prompts[1] has 513 tokens, but the model's"),
    ({"max_tokens": 512}, "max_tokens", "max_tokens is 512 and prompt has 4 tokens"),
    ({"model": "gpt"}, "model", "'gpt' is not served"),
]


@pytest.mark.parametrize(("body", "param", "words"), REFUSED, ids=[one[2][:60] for one in REFUSED])
async def test_one_sentence_names_the_field(
    http: httpx.AsyncClient, runner: PythiaRunner, body: dict[str, Any], param: str, words: str
) -> None:
    answer = await post(http, TENSORS, **{"prompts": ["Once upon a time", "a b"], **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404 if param == "model" else 400, param), error
    assert words in error["message"], error["message"]
    assert len(error["message"]) < 600 and "\n" not in error["message"]
    assert runner.stats().running == runner.stats().waiting == 0


async def test_sizes_are_refused_before_anything_is_computed(http: httpx.AsyncClient) -> None:
    every = [{"site": "blocks.*.mlp.hook_post"}]
    answer = await post(http, prompts=[[5] * 500, [6] * 500], capture=every)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413, "payload_too_large")
    assert error["message"] == (
        "capture asks for 6,144,000 bytes (1,000 positions, 3 layers, 2,048 bytes each), but the "
        "limit is 4,000,000; fewer positions or layers, a smaller dtype or a reduction take less"
    )
    more = [{"site": "hook_embed", "positions": "last"}, *every]
    answer = await post(http, prompts=[[5] * 500, [6] * 500], capture=more)
    assert "(capture[1] alone: 1,000 positions, 3 layers" in answer.json()["error"]["message"]
    answer = await post(http, prompts=[[5] * 500], capture=every[:1], dtype="float16")
    assert answer.status_code == 200
    answer = await post(http, prompts=[[5] * 500], capture=every[:1], format="json")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "format")
    assert error["message"] == (
        "format json holds up to 65,536 numbers, but capture asks for 768,000; safetensors has no "
        "such limit"
    )
    sites = ("resid_pre", "resid_post", "attn_out", "mlp_out")
    many = [{"site": f"blocks.*.hook_{site}", "positions": "last"} for site in sites]
    lens = [{**one, "reduce": {"lens": {"top": 1, "tokens": [5]}}} for one in many]
    answer = await post(http, prompts=["a"] * 100, capture=[*many, *lens])
    assert answer.json()["error"]["message"] == (
        "capture asks for 4,800 tensors of all layers and prompts, but the limit is 4,096"
    )


async def test_values_of_all_prompts_have_a_limit_together(http: httpx.AsyncClient) -> None:
    rows = np.zeros((380, WIDTH), np.float16)
    change = {"site": "blocks.*.hook_resid_pre", "op": "add", "vector": "rows"}
    body = {"prompts": [[5] * 380] * 64, "interventions": [change] * 2}
    answer = await post(http, {"rows": rows}, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (413, "interventions")
    assert "interventions holds more than 33,554,432 bytes of values" in error["message"]
    change = {"site": "blocks.*.hook_resid_pre", "op": "zero"}
    answer = await post(http, prompts=[[5]] * 256, interventions=[change] * 256)
    assert answer.json()["error"]["message"] == (
        "interventions makes more than 65,536 changes of all layers and prompts"
    )


async def test_bodies_with_a_file(http: httpx.AsyncClient) -> None:
    answer = await post(http, b"no tensors", prompts=["a"])
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "tensors")
    assert error["message"].startswith("tensors is not a safetensors file: it has 10 bytes and")
    answer = await post(http, bytes(MAX_TENSORS + 1), prompts=["a"])
    assert answer.json()["error"]["message"] == (
        f"tensors has {MAX_TENSORS + 1} bytes, but the limit is {MAX_TENSORS}"
    )
    answer = await post(http, bytes(MAX_TENSORS + 200_000), prompts=["a"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    answer = await http.post("/v1/activations", files={"tensors": ("t", b"")})
    assert (
        answer.json()["error"]["message"] == "request is required: a part with the request as JSON"
    )
    for path in ("/v1/patch", "/v1/completions", "/generate"):
        answer = await http.post(path, files={"request": (None, "{}")})
        assert (answer.status_code, "JSON" in answer.text) == (400, True)
        answer = await http.post(path, files={"request": (None, " " * 200_000)})
        assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "fields", "param", "words"),
    [
        ("/generate", {"n": 2}, "logits", "n must be 1 when logits are asked for, not 2"),
        ("/generate", {"best_of": 2}, "logits", "n must be 1 when logits are asked for, not 2"),
        ("/generate", {"stream": True}, "logits", "logits must be left out when stream is true"),
        ("/generate_stream", {}, "logits", "logits is not a field of this request"),
        ("/v1/completions", {"n": 2}, "logits", "n must be 1 when logits are asked for, not 2"),
        ("/v1/completions", {"stream": True}, "logits", "logits must be left out when stream is"),
        (
            "/v1/completions",
            {"logits": None, "interventions": [{"site": PRE, "op": "add", "vector": "v"}]},
            "interventions[0].vector",
            "names a tensor, which only /v1/activations takes; give numbers",
        ),
        (
            "/generate",
            {"interventions": [{"site": PRE, "op": "set", "from": {"prompt": 0}}]},
            "interventions",
            "interventions[0].from is not a field of this request",
        ),
        (
            "/generate",
            {"interventions": [{"site": "blocks.7.hook_resid_pre", "op": "zero"}]},
            "interventions[0].site",
            "but the model's layers are 0 to 2",
        ),
        (
            "/v1/completions",
            {"prompt": [[5] * 400], "logits": {"tokens": [5] * 200, "positions": "all"}},
            "logits",
            "logits asks for 83,000 numbers, but the limit is 65,536",
        ),
    ],
)
async def test_the_ordinary_api(
    http: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str, words: str
) -> None:
    body = {"prompt": "a", "logits": {"tokens": [5]}, **fields}
    answer = await http.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert words in error["message"]


WHOLE: dict[str, Any] = {
    "prompts": ["Once upon a time", [5, 6, 7]],
    "max_tokens": 2,
    "capture": [
        {"site": "blocks.*.hook_resid_post", "positions": "last"},
        {"site": "blocks.1.attn.hook_pattern", "heads": [0, 3]},
        {"site": PRE, "positions": [-1], "reduce": {"lens": {"top": 5, "tokens": [85]}}},
        {"site": POST, "neurons": [1, 2], "reduce": {"project": [[1, 0.5]]}},
        {"site": "hook_embed", "positions": {"from": 1, "to": -1}, "reduce": "norm"},
    ],
    "interventions": [
        {"site": PRE, "op": "add", "vector": "v", "scale": 4.0, "positions": "all"},
        {"site": Z, "op": "zero", "heads": [3]},
        {"site": PRE, "op": "set", "from": {"prompt": 0}, "positions": [2], "prompts": [1]},
        {"site": POST, "op": "clamp", "neurons": [5], "vector": [1], "low": -1, "high": 1},
    ],
    "logits": {"tokens": [77, 50], "positions": [-1]},
    "dtype": "float32",
}
ODD: list[Any] = [
    *(None, True, 0, 1, -1, 3, 2**31, 2**63, 1e6, -1e300, 0.5, "", "v", "rows", "all", "last"),
    *("generated", PRE, Z, "blocks.*.mlp.hook_post", "blocks.{0..9}.hook_mlp_out", "hook_embed"),
    *("mean", [], {}, [0], [-1, 2], ["a"], {"from": -2}, {"lens": {"top": 100}}, "set", "json"),
    *({"project": "rows"}, {"project": "v"}, "float16", "bfloat16", "scale", [5] * 400, "é\u2028"),
]


@amounts(60, 1500)
async def test_drawn_requests_are_answered_or_refused(
    http: httpx.AsyncClient, runner: PythiaRunner, amount: int
) -> None:
    statuses: dict[int, int] = {}
    for seed in range(amount):
        draw = random.Random(seed)
        body = mutated(draw, WHOLE, draw.randint(0, 3), ODD)
        if not isinstance(body, dict):
            continue
        answer = await post(http, TENSORS if draw.random() < 0.9 else None, **body)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert answer.status_code < 500 or error["code"] == "capture_overflow", (seed, error)
            assert "\n" not in error["message"] and len(error["message"]) < 700, seed
    arena = runner.arena
    assert arena is not None
    await reached(lambda: arena.used == 0)
    assert statuses[200] > amount / 10 and statuses[400] > amount / 10, statuses
