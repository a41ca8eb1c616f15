"""langchain-openai's OpenAI: invoked, streamed, in batches."""

from __future__ import annotations

from langchain_openai import OpenAI
from told import ASKED, PROMPT, URL, tell

llm = OpenAI(base_url=f"{URL}/v1", api_key="none", **ASKED)
tell("invoke", llm.invoke(PROMPT))
tell("stream", "".join(llm.stream(PROMPT)))
for text in llm.batch([PROMPT] * 4):
    tell("batch", text)
