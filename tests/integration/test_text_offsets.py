"""``text_offset`` of the bundled model's answers: it counts in the text that the answer holds."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.amounts import amounts
from tests.unit.conftest import app_of
from tests.unit.engine.test_offsets import CHARS_FOR_TEXTS, owners

AMOUNTS = (80, 250)  # texts, each as it is, in NFC and in NFD


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    torch.set_num_threads(1)
    settings = Settings(model="bundled@step0", device="cpu", max_batch_size=32)
    with PythiaRunner.load(settings) as runner:
        yield runner


def texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    words = [
        "The café",
        "re\u0301sume\u0301",
        "한국어",
        "각",
        "\U0001f469\u200d\U0001f4bb",
        "日本",
        "  ",
    ]
    made = [
        "".join(draw.choice([*words, *CHARS_FOR_TEXTS]) for _ in range(draw.randint(1, 12)))
        for _ in range(count)
    ]
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in made]
    return sorted({*made, *forms})


async def ask(runner: PythiaRunner, **body: Any) -> list[dict[str, Any]]:
    """The choices, streamed or not."""
    transport = httpx.ASGITransport(app_of(runner))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/v1/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    if not body["stream"]:
        choices: list[dict[str, Any]] = answer.json()["choices"]
        return choices
    joined: dict[int, dict[str, Any]] = {}
    for line in answer.text.split("\n"):
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            whole = joined.setdefault(choice["index"], choice)
            if whole is not choice:
                for name in ("text", "token_ids"):
                    whole[name] += choice[name]
                for name, column in (choice["logprobs"] or {}).items():
                    whole["logprobs"][name] += column
                whole |= {name: choice[name] for name in ("finish_reason", "stop_reason")}
    return [joined[index] for index in sorted(joined)]


def check_prompt(runner: PythiaRunner, choice: dict[str, Any], prompt: str) -> None:
    """Each whole token's text is what stands between its offset and the next, in normal form."""
    ids, text = choice["prompt_token_ids"], choice["text"]
    starts = choice["logprobs"]["text_offset"][: len(ids)]
    assert text.startswith(prompt)
    normal = [unicodedata.normalize("NFC", prompt[:end]) for end in range(len(prompt) + 1)]
    for count, start in enumerate(starts):
        before = b"".join(map(runner.tokenizer.token_bytes, ids[:count]))
        made = before.decode(errors="ignore")
        if made.encode() == before and made in normal:
            assert start == normal.index(made), (prompt, ids, starts)


def check_generated(runner: PythiaRunner, choice: dict[str, Any], prompt: str) -> int:
    """Each token begins at the character of its first byte; how many follow half a character."""
    pieces = [runner.tokenizer.token_bytes(id) for id in choice["token_ids"]]
    found = owners(b"".join(pieces))
    starts = choice["logprobs"]["text_offset"][len(choice["prompt_token_ids"]) :]
    assert len(starts) == len(pieces)
    place, after = 0, 0
    for piece, start in zip(pieces, starts, strict=True):
        if piece:
            assert start == len(prompt) + found[place]
            before = b"".join(pieces)[:place]
            is_new = place > 0 and found[place] > found[place - 1]
            after += is_new and before.decode(errors="replace").endswith("\ufffd")
        place += len(piece)
    return after


@amounts(*AMOUNTS)
async def test_offsets_of_all_kinds_of_text(runner: PythiaRunner, amount: int) -> None:
    prompts, after = texts(seed=1, count=amount), 0
    body = {
        **{"prompt": prompts, "echo": True, "logprobs": 0, "max_tokens": 6, "temperature": 5.0},
        "seed": 0,
        **{"return_token_ids": True, "skip_special_tokens": False, "ignore_eos": True},
    }
    plain = await ask(runner, stream=False, **body)
    assert await ask(runner, stream=True, **body) == plain
    for prompt, choice in zip(prompts, plain, strict=True):
        check_prompt(runner, choice, prompt)
        after += check_generated(runner, choice, prompt)
    assert sum(unicodedata.normalize("NFC", prompt) != prompt for prompt in prompts) > amount
    assert after > amount // 12  # tokens right after an unfinished character
