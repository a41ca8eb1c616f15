"""Parts that several messages of ``pythia.v1`` have, as clients send them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.types import Prompt


@contextmanager
def sending(field: str) -> Iterator[None]:
    """What cannot be in a message is refused here as the server refuses it over HTTP."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{field} cannot be sent: {error}", param=field) from None


def made(field: str, kind: Any, **fields: Any) -> Any:
    """A message; raises InvalidRequest, naming ``field``, for what cannot be in it."""
    with sending(field):
        return kind(**fields)


def prompt_of(name: str, prompt: Prompt) -> pb.Prompt:
    """Of a text, or of ids."""
    content = {"text": prompt} if isinstance(prompt, str) else {"tokens": {"ids": prompt}}
    message: pb.Prompt = made(name, pb.Prompt, **content)
    return message


def sampling_of(options: Mapping[str, Any]) -> pb.Sampling:
    """Raises InvalidRequest, naming the option."""
    message = pb.Sampling()
    for name, value in options.items():
        message.MergeFrom(made(name, pb.Sampling, **{name: _sent(name, value)}))
    return message


def _sent(name: str, value: Any) -> Any:
    if name == "stop" and isinstance(value, str):
        return [value]
    if name == "seed" and isinstance(value, int) and 2**63 <= value < 2**64:
        return value - 2**64  # the same modulo 2^64
    if name == "structured_outputs" and isinstance(value, Mapping):
        schema = value.get("json")
        return {**value, "json": json.dumps(schema)} if isinstance(schema, Mapping) else {**value}
    return value
