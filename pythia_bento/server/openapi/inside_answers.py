"""What ``/v1/activations`` and ``/v1/patch`` answer in JSON, for the description of the API."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pythia_bento.server.openapi.answers import Output, Schema, Token


class Completed(Output):
    """What was generated behind a prompt."""

    prompt_tokens: list[Token] = Field([])


class Activations(Schema):
    """What was captured, with ``format`` ``json``."""

    model: str
    system_fingerprint: str
    """With a digest behind a ``+`` where something was changed."""
    seed: int | None
    """What was sampled with; null where neither given nor needed."""
    tensors: dict[str, Any]
    """Lists of numbers by ``<prompt>:<site>``."""
    lens_tokens: dict[str, list[list[str]]]
    """Texts of what lenses found, by the names of their ids."""
    tokens: list[list[str]]
    """Of each prompt, and of what was generated behind it."""
    completions: list[Completed | None]
    """Null where nothing was to be generated."""


class Patched(Schema):
    """What each patch does to the metric."""

    model: str
    system_fingerprint: str
    clean: float
    """The metric of the clean prompt."""
    corrupted: float
    """The same of the corrupted one, without any patch."""
    layers: list[int]
    """What the rows are."""
    positions: list[int] = Field([])
    """What the columns are, unless these are heads."""
    heads: list[int] = Field([])
    tokens: list[str]
    """Of the clean prompt."""
    values: list[list[float]]
    """The metric with each patch."""
