"""What a caller may choose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from pythia_bento.client.specs import inline, inline_task
from pythia_bento.protocol.sweep import SweepItem
from pythia_bento.protocol.types import Prompt


class StructuredOutputs(TypedDict, total=False):
    """What a text must be: one of these. The server needs the extra ``guided``."""

    choice: Sequence[str]
    regex: str  # that matches the text from end to end
    json: Mapping[str, Any] | str  # a JSON schema
    grammar: str  # Lark's, or GBNF


class SamplingOptions(TypedDict, total=False):
    """How to continue a prompt; what is left out has the server's default; a seed is drawn."""

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    n: int | None
    best_of: int | None
    seed: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_str_in_output: bool | None
    ignore_eos: bool | None
    logit_bias: Mapping[int, float] | None
    skip_special_tokens: bool | None
    truncate_prompt_tokens: int | None
    priority: int | None
    structured_outputs: StructuredOutputs | None


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for encrypted connections; what is None is the system's or not used."""

    ca: Path | str | None = None  # who may have signed the server's certificate
    cert: Path | str | None = None  # of this client, for servers that ask
    key: Path | str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to, and as whom."""

    scheme: str  # http, https, grpc or grpcs
    address: str  # host:port, for HTTP with a path perhaps
    api_key: str | None
    tls: Tls

    @classmethod
    def parse(cls, url: str, **rest: Any) -> Connection:
        """Raises ValueError on a URL of another kind."""
        scheme, separator, address = url.partition("://")
        if not separator or not address or scheme not in ("http", "https", "grpc", "grpcs"):
            raise ValueError(f"url must begin with http, https, grpc or grpcs and ://, not {url!r}")
        return cls(scheme, address.rstrip("/"), **rest)

    @property
    def is_grpc(self) -> bool:
        """Whether the transport is gRPC."""
        return self.scheme.startswith("grpc")

    def headers(self) -> dict[str, str]:
        """With the key, if there is one."""
        return {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None; raises TypeError for what no server knows."""
    unknown = sorted(options.keys() - SamplingOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"{unknown[0]} is not an option; see SamplingOptions")
    return {name: value for name, value in options.items() if value is not None}


def generation_of(
    interventions: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of a request that generates; raises TypeError for what no server knows."""
    changes = {"interventions": inline(interventions)} if interventions else {}
    return {**checked(options), **changes}


def sweep_of(
    items: Iterable[SweepItem | Prompt],
    model: str | None,
    steps: str | Sequence[int] | None,
    models: Sequence[str] | None,
    task: str | Mapping[str, Any] | None,
    priority: int | None,
) -> dict[str, Any]:
    """A sweep by the names of its fields, without what is None; ``items`` are SweepItems."""
    task = {"type": task} if isinstance(task, str) else task and inline_task(task)
    given = {"model": model, "steps": steps, "models": models, "task": task, "priority": priority}
    texts = [one if isinstance(one, SweepItem) else SweepItem(one) for one in items]
    return {"items": texts, **{name: value for name, value in given.items() if value is not None}}
