"""What is said of one operation over HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from pythia_bento.errors import PythiaError

Errors = tuple[type[PythiaError], ...]


@dataclass(frozen=True)
class Events:
    """Server-sent events with JSON of one of these models; the last event is ``[DONE]``."""

    models: tuple[type[BaseModel], ...]


@dataclass(frozen=True)
class Lines:
    """JSON of one of these models in each line."""

    models: tuple[type[BaseModel], ...]


Content = type[BaseModel] | Events | Lines | str  # JSON, a stream of it, or another media type


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    tag: str
    method: str
    path: str
    id: str
    summary: str
    answers: tuple[Content, ...]
    errors: Errors = ()
    body: type[BaseModel] | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)  # summary -> body
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the path: name -> example
    needs_key: bool = True
    takes_tensors: bool = False
    """Whether the body may be JSON with a safetensors file beside it: ``multipart/form-data``."""
    generates: bool = False
    """Refused as a whole, unread, while the engine is full."""
    is_documented: bool = True
    """Whether the OpenAPI document has it: pages' parts are none of its readers' business."""

    @property
    def is_static(self) -> bool:
        """Whether the answer is the same for everybody for as long as the server runs."""
        return self.tag == "Pages"

    @property
    def is_template(self) -> bool:
        """Whether the path has a parameter."""
        return "{" in self.path

    def matches(self, path: str) -> bool:
        """Whether ``path`` is this operation's; a parameter takes one character or more."""
        return self._pattern.fullmatch(path) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = re.split(r"\{\w+\}", self.path)
        return re.compile(".+".join(map(re.escape, parts)))
