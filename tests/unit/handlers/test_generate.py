"""``/generate`` beside ``/v1/completions``: the same fields, the same answers."""

from __future__ import annotations

from pythia_bento.engine.params import score_request
from pythia_bento.handlers.generate import generate as answer
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.runtime.runner import PythiaRunner

WARM = {"max_tokens": 9, "temperature": 1.0, "ignore_eos": True, "frequency_penalty": 0.5}


async def generate(runner: PythiaRunner, **fields: object) -> dict:
    return await answer(runner, GenerateRequest.model_validate(fields))


async def test_best_of_picks_the_same(runner: PythiaRunner, complete) -> None:
    fields = {"prompt": "the end", "n": 2, "best_of": 5, **WARM}
    ranked = await complete(**fields)
    outputs = (await generate(runner, **fields))["outputs"]
    assert [output["text"] for output in outputs] == [c["text"] for c in ranked["choices"]]
    assert not any("tokens" in output for output in outputs)


async def test_the_prompt_is_cut_and_scored(runner: PythiaRunner) -> None:
    fields = {"prompt": [5, 6, 7, 8], "truncate_prompt_tokens": 3, "prompt_logprobs": 2, **WARM}
    found = await generate(runner, **fields)
    assert found["num_prompt_tokens"] == 3
    [scored] = await runner.score([score_request((6, 7, 8), 2)])
    assert [
        (token["id"], token["logprob"], [top["id"] for top in token["top"]])
        for token in found["prompt_tokens"]
    ] == [
        (token.token_id, token.logprob, [id for id, _ in token.top])
        for token in scored.prompt_logprobs or ()
    ]
    del fields["prompt_logprobs"]
    assert "prompt_tokens" not in await generate(runner, **fields)
