"""Constraints of every kind, and what a text that follows each is like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jsonschema_rs

from pythia_bento.engine.grammars import Constraint
from pythia_bento.protocol.structured import constraint_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dög"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
CHOICES = ["yes", "yes, but", "nö\n", '"quoted" \\ text']
REGEX = r"[0-9]{3}-(a|é){1,4}!?"


class Case(NamedTuple):
    """A value of ``structured_outputs`` and a check of complete texts."""

    value: dict[str, Any]
    conforms: Callable[[str], bool]

    @property
    def constraint(self) -> Constraint:
        """The same for the engine."""
        return constraint_of(self.value)


def _is_instance(text: str) -> bool:
    value = json.loads(text)
    return jsonschema_rs.is_valid(SCHEMA, value) and list(value) == ["name", "age", "kind"]


def _counts_up(text: str) -> bool:
    return re.fullmatch(r"(1 )*(2 )?end", text) is not None


CASES = {
    "choice": Case({"choice": CHOICES}, lambda text: text in CHOICES),
    "regex": Case({"regex": REGEX}, lambda text: bool(re.fullmatch(REGEX, text))),
    "json": Case({"json": SCHEMA}, _is_instance),
    "json text": Case({"json": json.dumps(SCHEMA)}, _is_instance),
    "lark": Case({"grammar": 'start: ("1 ")* "2 "? "end"'}, _counts_up),
    "gbnf": Case({"grammar": 'root ::= ones "2 "? "end"\nones ::= "" | "1 " ones'}, _counts_up),
}
