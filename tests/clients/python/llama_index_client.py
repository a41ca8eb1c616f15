"""llama-index' OpenAILike: complete, streamed."""

from __future__ import annotations

from llama_index.llms.openai_like import OpenAILike
from told import ASKED, PROMPT, URL, tell

llm = OpenAILike(api_base=f"{URL}/v1", api_key="none", is_chat_model=False, **ASKED)
tell("complete", llm.complete(PROMPT).text)
*_, last = llm.stream_complete(PROMPT)
tell("streamed", last.text)
