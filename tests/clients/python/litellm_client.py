"""litellm, by each provider that speaks completions, streamed and async."""

from __future__ import annotations

import asyncio

import litellm
from told import ASKED, PROMPT, URL, tell

PLACE = {"api_base": f"{URL}/v1", "api_key": "none", "max_tokens": 13, "temperature": 0}
for provider in ("text-completion-openai", "openai", "hosted_vllm"):
    answer = litellm.text_completion(model=f"{provider}/{ASKED['model']}", prompt=PROMPT, **PLACE)
    tell(provider, answer.choices[0].text)
model = "text-completion-openai/bundled"
stream = litellm.text_completion(model=model, prompt=PROMPT, stream=True, **PLACE)
tell("streamed", "".join(chunk.choices[0].text or "" for chunk in stream))
answer = asyncio.run(litellm.atext_completion(model=model, prompt=PROMPT, **PLACE))
tell("async", answer.choices[0].text)
