"""dspy's LM for models of text."""

from __future__ import annotations

import dspy
from told import ASKED, PROMPT, URL, tell

lm = dspy.LM(
    f"openai/{ASKED['model']}",
    api_base=f"{URL}/v1",
    api_key="none",
    model_type="text",
    max_tokens=13,
    temperature=0,
    cache=False,
)
[text] = lm(prompt=PROMPT)
assert text
tell("text", text, prompt=f"{PROMPT}\n\nBEGIN RESPONSE:")
