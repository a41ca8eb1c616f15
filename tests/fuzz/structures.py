"""Whole structures, changed at random places: for JSON and YAML that comes from outside.

Everything is drawn from a ``random.Random``: a seed gives the same case again, and hypothesis can
bring a ``Random`` of its own, whose draws it makes smaller.
"""

from __future__ import annotations

import copy
import json
import random
import sys
from typing import Any

DEEP = "@deep"  # a string that becomes so many brackets: no serialiser nests as deep
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 1000, 2**31, 2**32 + 1, 2**63, 10**30, 10**400),
    *(0.0, -0.5, 1.5, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "0", "null", "..", "../../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "~", "."),
    *("model.safetensors", "config.json", "a" * 40, "A" * 40, "0" * 64, "é\u2028\n", "a" * 5000),
    *([], {}, [[]], {"": None}, ["x"], {"a": {"b": []}}, [None] * 300),
    *(f"{DEEP}50", f"{DEEP}150", f"{DEEP}3000", f"{DEEP}100000"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every part of a structure; of long lists and objects only to some."""
    found = [path]
    if isinstance(value, dict):
        for key in [*value][:12] + [*value][12::97]:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in [*range(len(value))][:6] + [*range(len(value))][6::89]:
            found += places(value[index], (*path, index))
    return found


def part(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def mutated(draw: random.Random, value: Any, changes: int, odd: list[Any] = ODD) -> Any:
    """A copy with so many parts replaced, left out, added, renamed, repeated, wrapped or moved."""
    root = [copy.deepcopy(value)]
    for _ in range(changes):
        path = draw.choice(places(root)[1:])
        parent, key = part(root, path[:-1]), path[-1]
        _change(draw, root, parent, key, odd)
        if not root:
            root = [None]
    return root[0]


def _change(draw: random.Random, root: Any, parent: Any, key: Any, odd: list[Any]) -> None:
    how = draw.choice(["replace", "replace", "replace", "drop", "add", "rename", "wrap", "move"])
    old = parent[key]
    if how == "drop":
        del parent[key]
    elif how == "add" and isinstance(old, dict):
        old[str(draw.choice(odd))[:50]] = draw.choice(odd)
    elif how == "add" and isinstance(old, list):
        old += old[: draw.choice([1, 2, 100])] or [draw.choice(odd)]
    elif how == "rename" and isinstance(parent, dict):
        parent[str(draw.choice(odd))[:6000]] = parent.pop(key)
    elif how == "wrap":
        parent[key] = draw.choice([[old], {"x": old}, [old, old], f"{type(old)}"])
    elif how == "move":
        parent[key] = copy.deepcopy(part(root, draw.choice(places(root)[1:])))
    elif isinstance(old, str) and draw.random() < 0.3:
        at = draw.randint(0, len(old))
        parent[key] = old[:at] + draw.choice(["", "/", "..", "\0", "\n", "é", " "]) + old[at + 1 :]
    else:
        parent[key] = copy.deepcopy(draw.choice(odd))


def as_json(draw: random.Random, value: Any) -> bytes:
    """As text, now and then with a fault of its own."""
    most = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # here alone
    try:
        text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    finally:
        sys.set_int_max_str_digits(most)
    for count in (50, 150, 3000, 100000):
        text = text.replace(f'"{DEEP}{count}"', "[" * count + "]" * count)
    return damaged(draw, text.encode("utf-8", "surrogatepass"))


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Bytes, in one of ten cases cut, changed or filled up."""
    if draw.random() < 0.9 or not data:
        return data
    at = draw.randint(0, len(data) - 1)
    return draw.choice(
        [
            data[:at],
            data + data[:at],
            data[:at] + bytes([draw.randint(0, 255)]) + data[at + 1 :],
            b"\xef\xbb\xbf" + data,
            b"<html>" + data,
            b"",
            b" " * 2000 + data,
        ]
    )
