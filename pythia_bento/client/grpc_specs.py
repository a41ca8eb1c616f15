"""Captures and interventions in the messages of ``pythia.v1``, of what JSON has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pythia_bento.client.grpc_fields import prompt_of, sending
from pythia_bento.protocol.generated import pythia_pb2 as pb


def _prompt(field: str, _: Any, value: Any) -> pb.Prompt:
    return prompt_of(field, value)


def spec_of(field: str, kind: Any, spec: Mapping[str, Any]) -> Any:
    """A message of ``kind``; raises InvalidRequest, naming ``field``, for what cannot be in it."""
    with sending(field):
        return kind(**dict(_SENT[n](v) if n in _SENT else (n, v) for n, v in spec.items()))


# Fields that are lists, and what makes a message of an entry.
LISTS: dict[str, tuple[Any, Callable[[str, Any, Any], Any]]] = {
    "prompts": (pb.Prompt, _prompt),
    "capture": (pb.Capture, spec_of),
    "interventions": (pb.Intervention, spec_of),
}


def put_all(message: Any, field: str, values: Any) -> None:
    """Into a field of LISTS; raises InvalidRequest."""
    kind, of = LISTS[field]
    for index, one in enumerate(values):
        getattr(message, field).append(of(f"{field}[{index}]", kind, one))


def _positions(value: Any) -> pb.Positions:
    if isinstance(value, str):
        return pb.Positions(word=value)
    if isinstance(value, Mapping):
        names = {"from": "start", "to": "stop"}
        return pb.Positions(span=pb.Span(**{names[name]: end for name, end in value.items()}))
    return pb.Positions(indices=pb.Indices(indices=value))


def _vector(value: Any) -> pb.Vector:
    if isinstance(value, str):
        return pb.Vector(tensor=value)
    return pb.Vector(numbers=pb.Numbers(numbers=value))


def _reduce(value: Any) -> pb.Reduce:
    if isinstance(value, str):
        return pb.Reduce(word=value)
    [(kind, what)] = value.items()
    sent: dict[str, Any] = {kind: _directions(what) if kind == "project" else what}
    return pb.Reduce(**sent)


def _directions(value: Any) -> pb.Directions:
    if isinstance(value, str):
        return pb.Directions(tensor=value)
    rows = value if value and isinstance(value[0], (list, tuple)) else [value]
    return pb.Directions(rows=[pb.Numbers(numbers=row) for row in rows])


_SENT: dict[str, Callable[[Any], tuple[str, Any]]] = {
    "positions": lambda value: ("positions", _positions(value)),
    "vector": lambda value: ("vector", _vector(value)),
    "reduce": lambda value: ("reduce", _reduce(value)),
    "from": lambda value: ("from_prompt", value["prompt"]),
}
