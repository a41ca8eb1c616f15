"""``/v1/patch`` over the bundled model: each cell is what ``/v1/activations`` says of its patch."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from pythia_bento.handlers import patch
from pythia_bento.runtime.runner import PythiaRunner
from tests.integration.inside import HEADS, LAYERS, asked, client_of, reached

CLEAN, CORRUPTED, TIME, DAY = "Once upon a", "Once there a", 685, 336
BODY: dict[str, Any] = {
    **{"clean": CLEAN, "corrupted": CORRUPTED, "site": "blocks.*.hook_resid_pre"},
    "metric": {"logit_diff": [" time", DAY]},
}


async def patched(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await http.post("/v1/patch", json={**BODY, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def by_hand(http: httpx.AsyncClient, **change: Any) -> float:
    """The difference of logits with one intervention in the corrupted prompt."""
    file = await asked(
        http,
        prompts=[CLEAN, CORRUPTED],
        logits={"tokens": [TIME, DAY]},
        interventions=[{"op": "set", "from": {"prompt": 0}, **change}] if change else [],
    )
    return float(file["1:logits"][0, 0]) - float(file["1:logits"][0, 1])


async def test_each_position_is_a_patch_by_hand(http: httpx.AsyncClient) -> None:
    answer = await patched(http)
    assert answer["tokens"] == ["Once", " upon", " a"]
    assert (answer["layers"], answer["positions"]) == ([0, 1, 2], [0, 1, 2])
    assert answer["corrupted"] == await by_hand(http)
    for layer in range(LAYERS):
        for position in range(3):
            site = f"blocks.{layer}.hook_resid_pre"
            expected = await by_hand(http, site=site, positions=[position])
            assert answer["values"][layer][position] == expected
    assert answer["values"][0][1] == answer["clean"]  # the prompts differ there alone
    assert answer["values"][0][0] == answer["corrupted"]


async def test_each_head_is_a_patch_by_hand(http: httpx.AsyncClient) -> None:
    answer = await patched(http, site="blocks.{1..2}.attn.hook_z", over=["layer", "head"])
    assert (answer["layers"], answer["heads"]) == ([1, 2], [*range(HEADS)])
    assert "positions" not in answer
    for row, layer in enumerate((1, 2)):
        for head in range(HEADS):
            site = f"blocks.{layer}.attn.hook_z"
            expected = await by_hand(http, site=site, heads=[head])
            assert answer["values"][row][head] == expected


async def test_log_probabilities_are_what_scores_tell(http: httpx.AsyncClient) -> None:
    answer = await patched(http, metric={"logprob": TIME})
    ids = (await asked(http, prompts=[CLEAN, CORRUPTED]))["0:token_ids"].tolist()
    scored = await http.post("/score", json={"items": [{"prompt": ids, "continuation": [TIME]}]})
    assert answer["clean"] == scored.json()[0]["logprob"] == answer["values"][0][1]


async def test_cells_are_the_same_however_many_are_computed_at_a_time(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fields in (
        {},
        {"site": "blocks.*.attn.hook_k", "over": ["layer", "head"]},
        {"metric": {"logprob": DAY}},
    ):
        whole = await patched(http, **fields)
        with monkeypatch.context() as patching:
            patching.setattr(patch, "CELLS_AT_ONCE", 2)
            assert await patched(http, **fields) == whole
        with monkeypatch.context() as patching:
            patching.setattr(patch, "BYTES_AT_ONCE", 1500)
            assert await patched(http, **fields) == whole


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        (
            {"corrupted": "Once there a a"},
            "corrupted",
            "clean has 3 tokens and corrupted 4; they must have the same number",
        ),
        ({"clean": ""}, "clean", "clean has 0 tokens, but must have 1 to 512"),
        ({"corrupted": [5] * 513}, "corrupted", "corrupted has 513 tokens, but must have 1 to 512"),
        (
            {"clean": [5] * 512, "metric": {"logprob": 5}},
            "clean",
            "clean has 512 tokens, but must have 1 to 511",
        ),
        ({"clean": [5000]}, "clean", "clean holds 5000, but token ids are integers from 0 to"),
        (
            {"metric": {"logprob": "a text"}},
            "metric",
            "metric has 'a text', which is 5 tokens and must be one; a word in a text begins with",
        ),
        ({"metric": {"logprob": 5000}}, "metric", "metric holds 5000, but token ids are"),
        ({"site": "hook_embed"}, "site", "site is hook_embed, which is in no layer"),
        (
            {"site": "blocks.0.attn.hook_pattern"},
            "site",
            "site is blocks.0.attn.hook_pattern, which can be read and not changed",
        ),
        ({"over": ["layer", "head"]}, "site", "hook_resid_pre, which has no heads to go over"),
        ({"site": "blocks.9.hook_resid_pre"}, "site", "but the model's layers are 0 to 2"),
    ],
)
async def test_one_sentence_names_the_field(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = await http.post("/v1/patch", json={**BODY, **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert words in error["message"]


async def test_too_many_cells_are_counted_and_not_computed(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch, "MAX_CELLS", 1000)
    answer = await http.post("/v1/patch", json={**BODY, "clean": [5] * 500, "corrupted": [6] * 500})
    assert answer.json()["error"]["message"] == (
        "patch asks for 1,500 cells (3 layers, 500 positions), but the limit is 1,000; name fewer "
        "layers"
    )


async def test_who_leaves_ends_it(runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch, "CELLS_AT_ONCE", 1)
    async with client_of(runner) as http:
        body = {**BODY, "clean": [5] * 300, "corrupted": [6] * 300}
        asking = http.post("/v1/patch", json=body)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asking, 0.3)
    arena = runner.arena
    assert arena is not None
    await reached(lambda: arena.used == 0 and not runner.stats().running)
