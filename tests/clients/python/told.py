"""What every program asks, and how it tells the answers: a line of JSON each."""

from __future__ import annotations

import json
import sys
from typing import Any

URL = sys.argv[1]
PROMPT = "Question: What color is"
ASKED: dict[str, Any] = {"model": "bundled", "max_tokens": 13, "temperature": 0}


def tell(how: str, text: str, prompt: str = PROMPT) -> None:
    """``prompt`` is what was sent, where a program writes words of its own around it."""
    print(json.dumps({"how": how, "text": text, "prompt": prompt}), flush=True)
