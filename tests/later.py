"""Libraries that take seconds to import, imported at the first use: workers collect all tests.

``tests/sharing.py`` sends the tests that use them to one worker.
"""

from __future__ import annotations

import importlib
from typing import Any


class Later:
    """Stands for a module whose attributes are asked for while tests run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest's plugins look for their marks on everything
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


bitsandbytes = Later("bitsandbytes")
openai = Later("openai")
transformers = Later("transformers")
