"""openai for Python: sync, async, streamed, scored, and the class of a refusal."""

from __future__ import annotations

import asyncio

import openai
from told import ASKED, PROMPT, URL, tell

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
tell("sync", client.completions.create(prompt=PROMPT, **ASKED).choices[0].text)
stream = client.completions.create(prompt=PROMPT, stream=True, **ASKED)
tell("streamed", "".join(chunk.choices[0].text for chunk in stream))
several = client.completions.create(prompt=[PROMPT, PROMPT], **ASKED)
for choice in several.choices:
    tell("two prompts", choice.text)


async def ask() -> str:
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none") as asynchronous:
        return (await asynchronous.completions.create(prompt=PROMPT, **ASKED)).choices[0].text


tell("async", asyncio.run(ask()))
scored = client.completions.create(
    model="bundled", prompt=PROMPT, max_tokens=0, echo=True, logprobs=0
)
assert "".join(scored.choices[0].logprobs.tokens) == PROMPT
try:
    client.completions.create(**{**ASKED, "prompt": PROMPT, "model": "nothing"})
except openai.NotFoundError as error:
    assert error.param == "model", error
else:
    raise AssertionError("a model that is not served was answered")
