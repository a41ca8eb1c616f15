"""``/v1/activations`` over the bundled model: what it tells, and what changes do."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import torch

from tests.integration.inside import (
    HEADS,
    INNER,
    LAYERS,
    WIDTH,
    asked,
    bits,
    post,
)

A, B = "Once upon a time", "One day a time"  # of equal length
RESID = "blocks.{}.hook_resid_{}"


def sites(*patterns: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"site": pattern, **fields} for pattern in patterns]


async def test_every_site_has_its_shape(http: httpx.AsyncClient) -> None:
    every = sites(
        *("hook_embed", "blocks.*.hook_resid_pre", "blocks.*.attn.hook_q", "blocks.*.attn.hook_k"),
        *("blocks.*.attn.hook_v", "blocks.*.attn.hook_pattern", "blocks.*.attn.hook_z"),
        *("blocks.*.hook_attn_out", "blocks.*.mlp.hook_post", "blocks.*.hook_mlp_out"),
        *("blocks.*.hook_resid_post", "ln_final.hook_normalized"),
    )
    file = await asked(http, prompts=[A, [5, 6, 7]], capture=every)
    assert len(file.tensors) == 2 * (2 + LAYERS * 10 + 1)
    for prompt, tokens in enumerate((4, 3)):
        shapes = {
            "hook_embed": (tokens, WIDTH),
            "blocks.1.attn.hook_q": (tokens, HEADS, WIDTH // HEADS),
            "blocks.1.attn.hook_pattern": (HEADS, tokens, tokens),
            "blocks.1.mlp.hook_post": (tokens, INNER),
            "ln_final.hook_normalized": (tokens, WIDTH),
            "token_ids": (tokens,),
        }
        assert {name: file[f"{prompt}:{name}"].shape for name in shapes} == shapes
        pattern = file[f"{prompt}:blocks.2.attn.hook_pattern"]
        np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-6)
        assert not np.triu(pattern, 1).any()
        pre, attn, mlp, post = (
            file[f"{prompt}:blocks.1.hook_{name}"]
            for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        assert bits(post) == bits((pre + attn) + mlp)
    assert file["1:token_ids"].tolist() == [5, 6, 7]
    assert file.text("tokens")[0] == ["Once", " upon", " a", " time"]
    assert (file.metadata["num_layers"], file.text("completions")) == ("3", [None, None])
    assert file.text("request") == {"capture": every}


async def test_json_has_the_same_numbers(http: httpx.AsyncClient) -> None:
    body = {
        "prompts": [A],
        "capture": [
            *sites(RESID.format("*", "pre"), "blocks.0.attn.hook_pattern"),
            *sites(RESID.format("*", "post"), reduce={"lens": {"top": 2, "tokens": [5]}}),
        ],
        "logits": {"tokens": [5, 6], "positions": "all"},
    }
    file = await asked(http, **body)
    answer = (await post(http, **body, format="json")).json()
    assert answer["tensors"].keys() == file.tensors.keys()
    for name, values in answer["tensors"].items():
        np.testing.assert_array_equal(np.array(values, file[name].dtype), file[name])
    assert answer["tokens"] == file.text("tokens")
    for name in ("model", "system_fingerprint"):
        assert answer[name] == file.metadata[name]


async def test_some_positions_heads_and_neurons_are_parts_of_all(http: httpx.AsyncClient) -> None:
    z, inner = "blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"
    whole = await asked(http, prompts=[A], capture=sites(z, inner))
    some = await asked(
        http,
        prompts=[A],
        capture=[
            {"site": z, "positions": [-1, 0, 3], "heads": [3, 1]},
            {"site": inner, "positions": {"from": 1, "to": -1}, "neurons": [500, 2, 7]},
        ],
    )
    assert bits(some[f"0:{z}"]) == bits(whole[f"0:{z}"][[0, 3]][:, [3, 1]])
    assert bits(some[f"0:{inner}"]) == bits(whole[f"0:{inner}"][1:3][:, [500, 2, 7]])


async def test_reductions(http: httpx.AsyncClient) -> None:
    site, rng = RESID.format(1, "pre"), np.random.default_rng(0)
    v = rng.normal(size=(3, WIDTH)).astype(np.float32)
    rows = (await asked(http, prompts=[A], capture=sites(site)))[f"0:{site}"]
    kinds: dict[str, Any] = {"mean": "mean", "norm": "norm", "project": {"project": "v"}}
    found = {
        name: (await asked(http, {"v": v}, prompts=[A], capture=sites(site, reduce=kind)))
        for name, kind in kinds.items()
    }
    wide = rows.astype(np.float64)
    expected = {
        "mean": wide.mean(0),
        "norm": np.linalg.norm(wide, axis=-1),
        "project": wide @ v.T.astype(np.float64),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][f"0:{site}:{name}"], values, rtol=1e-4, atol=1e-5)
    inline = await asked(
        http, prompts=[A], capture=sites(site, reduce={"project": v[:1].tolist()[0]})
    )
    np.testing.assert_array_equal(
        inline[f"0:{site}:project"], found["project"][f"0:{site}:project"][:, :1]
    )


async def test_the_last_layers_lens_is_what_scores_tell(http: httpx.AsyncClient) -> None:
    ids = (await http.post("/score", json={"items": [{"prompt": A}]})).json()[0]["tokens"]
    wanted = [token["id"] for token in ids]
    file = await asked(
        http,
        prompts=[A],
        capture=sites(RESID.format(LAYERS - 1, "post"), reduce={"lens": {"tokens": wanted}}),
    )
    lens = file[f"0:{RESID.format(LAYERS - 1, 'post')}:lens_token_logprobs"]
    found = [float(lens[place, place]) for place in range(len(wanted))]
    assert found == [token["logprob"] for token in ids]
    assert len(file.tensors) == 2  # no best tokens where none were asked for


async def test_what_is_generated_is_seen_and_is_what_generate_says(
    http: httpx.AsyncClient,
) -> None:
    sampling = {"max_tokens": 6, "temperature": 0.8, "seed": 3, "logprobs": 1}
    said = (await http.post("/generate", json={"prompt": A, **sampling})).json()
    file = await asked(http, prompts=[A], capture=sites(RESID.format(0, "pre")), **sampling)
    [completion] = file.text("completions")
    assert completion == said["outputs"][0]
    ids = file["0:token_ids"].tolist()
    assert ids[4:] == completion["token_ids"]
    assert len(file["0:" + RESID.format(0, "pre")]) == len(ids) - 1
    assert len(file.text("tokens")[0]) == len(ids)
    again = await asked(http, prompts=[ids[:-1]], capture=sites(RESID.format(0, "pre")))
    assert bits(again["0:" + RESID.format(0, "pre")]) == bits(file["0:" + RESID.format(0, "pre")])
    late = await asked(
        http, prompts=[A], capture=sites(RESID.format(0, "pre"), positions="generated"), **sampling
    )
    assert bits(late["0:" + RESID.format(0, "pre")]) == bits(
        file["0:" + RESID.format(0, "pre")][4:]
    )


async def test_a_text_that_ends_early_has_so_many_rows(http: httpx.AsyncClient) -> None:
    first = await http.post("/generate", json={"prompt": A, "max_tokens": 9, "temperature": 0})
    stop = first.json()["outputs"][0]["token_ids"][3]
    file = await asked(
        http,
        **{"prompts": [A], "max_tokens": 9, "temperature": 0, "stop_token_ids": [stop]},
        capture=sites("hook_embed", "blocks.0.attn.hook_pattern"),
    )
    count = len(file["0:token_ids"]) - 1
    assert count == 4 + 3
    assert file["0:hook_embed"].shape == (count, WIDTH)
    assert file["0:blocks.0.attn.hook_pattern"].shape == (HEADS, count, count)
    np.testing.assert_allclose(file["0:blocks.0.attn.hook_pattern"].sum(-1), 1, atol=1e-6)


async def test_narrow_types_are_the_values_rounded(http: httpx.AsyncClient) -> None:
    site = RESID.format(1, "post")
    rows = torch.tensor((await asked(http, prompts=[A], capture=sites(site)))[f"0:{site}"])
    half = await asked(http, prompts=[A], capture=sites(site), dtype="float16")
    assert half.dtypes[f"0:{site}"] == "F16"
    np.testing.assert_array_equal(half[f"0:{site}"], rows.half().numpy())
    brain = await asked(http, prompts=[A], capture=sites(site), dtype="bfloat16")
    assert brain.dtypes[f"0:{site}"] == "BF16"
    expected = rows.bfloat16().view(torch.int16).numpy().astype(np.uint16)
    np.testing.assert_array_equal(brain[f"0:{site}"], expected)
    answer = await post(http, prompts=[A], capture=sites(site), dtype="bfloat16", format="json")
    numbers = np.array(answer.json()["tensors"][f"0:{site}"], np.float32)
    np.testing.assert_array_equal(numbers, rows.bfloat16().float().numpy())


async def test_what_does_not_fit_float16_is_an_error_that_says_where(
    http: httpx.AsyncClient,
) -> None:
    change = {"site": "blocks.1.hook_resid_pre", "op": "set", "positions": [2]}
    answer = await post(
        http,
        prompts=[A],
        capture=sites(RESID.format(1, "pre")),
        interventions=[{**change, "vector": [1e5] * WIDTH}],
        dtype="float16",
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (500, "capture_overflow")
    assert error["message"] == (
        "blocks.1.hook_resid_pre at position 2 does not fit float16; ask for float32 or bfloat16"
    )


async def test_changes_that_change_nothing(http: httpx.AsyncClient) -> None:
    site, plain = RESID.format(1, "pre"), {"prompts": [A], "logits": {"tokens": [*range(64)]}}
    before = await asked(http, **plain, capture=sites(site))
    for change, tensors in (
        ({"op": "set", "vector": "v"}, {"v": before[f"0:{site}"]}),
        ({"op": "add", "vector": "v", "scale": 0}, {"v": before[f"0:{site}"]}),
        ({"op": "scale"}, {}),
    ):
        after = await asked(
            http, tensors, **plain, capture=sites(site), interventions=[{"site": site, **change}]
        )
        assert bits(after["0:logits"]) == bits(before["0:logits"])
        assert bits(after[f"0:{site}"]) == bits(before[f"0:{site}"])
        is_set = change["op"] == "set"
        assert ("+" in after.metadata["system_fingerprint"]) is is_set


async def test_each_operation_does_what_it_says(http: httpx.AsyncClient) -> None:
    site, rng = RESID.format(1, "pre"), np.random.default_rng(1)
    v = rng.normal(size=WIDTH).astype(np.float32)
    d = v / np.linalg.norm(v.astype(np.float64))
    x = (await asked(http, prompts=[A], capture=sites(site)))[f"0:{site}"].astype(np.float64)
    along = (x @ d)[:, None]
    expected = {
        "add": ({"vector": "v", "scale": -2.5}, x - 2.5 * v),
        "set": ({"vector": "v"}, np.tile(v, (4, 1))),
        "scale": ({"scale": 3}, 3 * x),
        "zero": ({}, 0 * x),
        "project_out": ({"vector": "v", "scale": 0.5}, x - 0.5 * along * d),
        "clamp": ({"vector": "v", "high": -0.1}, x + (np.minimum(along, -0.1) - along) * d),
    }
    for op, (fields, values) in expected.items():
        change = {"site": site, "op": op, **fields}
        found = await asked(
            http, {"v": v}, prompts=[A], capture=sites(site), interventions=[change]
        )
        np.testing.assert_allclose(found[f"0:{site}"], values, rtol=1e-4, atol=1e-4, err_msg=op)


async def test_changes_of_heads_neurons_rows_and_prompts(http: httpx.AsyncClient) -> None:
    z, inner = "blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"
    capture = sites(z, inner)
    before = await asked(http, prompts=[A, B], capture=capture)
    rows = np.arange(2 * WIDTH // HEADS, dtype=np.float32).reshape(2, 1, WIDTH // HEADS)
    after = await asked(
        http,
        {"rows": rows},
        prompts=[A, B],
        capture=capture,
        interventions=[
            {"site": z, "op": "set", "vector": "rows", "heads": [2], "positions": [0, -1]},
            {"site": inner, "op": "zero", "neurons": [1, 9], "prompts": [1]},
        ],
    )
    for prompt in (0, 1):
        expected = before[f"{prompt}:{z}"].copy()
        expected[[0, -1], 2] = rows[:, 0]
        assert bits(after[f"{prompt}:{z}"]) == bits(expected)
    assert bits(after[f"0:{inner}"]) == bits(before[f"0:{inner}"])
    expected = before[f"1:{inner}"].copy()
    expected[:, [1, 9]] = 0
    assert bits(after[f"1:{inner}"]) == bits(expected)


async def test_a_prompt_with_all_of_anothers_stream_says_the_same(http: httpx.AsyncClient) -> None:
    change = {"site": "hook_embed", "op": "set", "from": {"prompt": 0}}
    file = await asked(
        http,
        **{"prompts": [A, B, B], "max_tokens": 4, "temperature": 0, "logprobs": 3},
        logits={"tokens": [*range(64)], "positions": "prompt"},
        interventions=[{**change, "prompts": [2]}],
    )
    first, _, patched = file.text("completions")
    assert (patched, bits(file["2:logits"])) == (first, bits(file["0:logits"]))
    assert bits(file["1:logits"]) != bits(file["0:logits"])


async def test_values_are_taken_of_prompts_that_take_some_themselves(
    http: httpx.AsyncClient,
) -> None:
    site = RESID.format(1, "pre")
    file = await asked(
        http,
        prompts=[A, B, "a b"],
        capture=sites(site),
        interventions=[
            {"site": site, "op": "set", "from": {"prompt": 0}, "positions": [0, 1], "prompts": [1]},
            {"site": site, "op": "scale", "scale": 2, "positions": [1], "prompts": [1]},
            {"site": site, "op": "set", "from": {"prompt": 1}, "positions": "last", "prompts": [2]},
            {"site": site, "op": "set", "from": {"prompt": 1}, "positions": [1], "prompts": [2]},
        ],
    )
    first, second, third = (file[f"{prompt}:{site}"] for prompt in range(3))
    assert bits(second[0]) == bits(first[0])
    assert bits(second[1]) == bits(2 * first[1])
    assert bits(third[-1]) == bits(second[-1] if len(third) != 2 else second[1])
    assert bits(third[1]) == bits(second[1])


async def test_the_ordinary_api_takes_changes_and_tells_logits(http: httpx.AsyncClient) -> None:
    changes = [{"site": "blocks.*.attn.hook_z", "op": "zero", "heads": [1]}]
    logits = {"tokens": [5, 6, 7], "positions": [0, -1]}
    both = {"interventions": changes, "logits": logits, "max_tokens": 5, "temperature": 0}
    file = await asked(http, prompts=[A], **both)
    said = (await http.post("/generate", json={"prompt": A, **both})).json()
    completed = (await http.post("/v1/completions", json={"prompt": [A, B], **both})).json()
    plain = (await http.post("/generate", json={"prompt": A, **both, "interventions": []})).json()
    assert said["logits"] == file["0:logits"].tolist()
    assert completed["choices"][0]["logits"] == said["logits"] != plain["logits"]
    assert completed["choices"][0]["text"] == said["outputs"][0]["text"]
    assert said["fingerprint"] == file.metadata["system_fingerprint"] != plain["fingerprint"]
    assert completed["system_fingerprint"] == said["fingerprint"]
    del both["logits"]
    for path, prompt in (("/generate", A), ("/v1/completions", A)):
        answer = await http.post(path, json={"prompt": prompt, **both, "stream": True})
        events = [json.loads(line[6:]) for line in answer.text.split("\n\n")[:-2]]
        parts = [part for event in events for part in event.get("deltas") or event["choices"]]
        assert "".join(part["text"] for part in parts) == said["outputs"][0]["text"]
        told = events[-1].get("summary", events[-1])
        name = "fingerprint" if "summary" in events[-1] else "system_fingerprint"
        assert told[name] == said["fingerprint"]


async def test_looking_changes_nothing_and_answers_come_again(http: httpx.AsyncClient) -> None:
    plain = {"prompt": A, "max_tokens": 8, "temperature": 1, "seed": 5, "logprobs": 2}
    before = (await http.post("/generate", json=plain)).json()["outputs"]
    body = {"prompts": [A], "capture": sites("blocks.*.attn.hook_pattern", "hook_embed")}
    sampling = {name: plain[name] for name in ("max_tokens", "temperature", "seed", "logprobs")}
    answers = [await post(http, **body, **sampling) for _ in range(2)]
    assert answers[0].content == answers[1].content
    file = await asked(http, **body, **sampling)
    assert file.text("completions") == before
    assert (await http.post("/generate", json=plain)).json()["outputs"] == before
