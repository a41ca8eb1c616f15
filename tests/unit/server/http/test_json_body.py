"""Large bodies in pieces: the same as at once, and refused where they are far beyond limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from operator import sub
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_bento.engine.validate import Limits
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.parsing import loads
from pythia_bento.runtime import turns
from pythia_bento.server.http import json_body
from pythia_bento.server.http.json_body import MAX_BRACKETS, MAX_FIELDS, MAX_PARTS, read_large
from tests.unit.turning import turning

LIMITS = Limits(num_tokens=1000, max_positions=512, cache_tokens=4096, max_text_chars=1000)


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Pieces of a few bytes, and a turn of others after each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "PIECE", 7)
        patch.setattr(json_body, "LOOK", 5)
        patch.setattr(turns, "PIECE_SECONDS", 0)
        yield


TEXTS = st.text(
    st.sampled_from('ab"\\[]{},: \n\u00e9\U0001f600') | st.characters(codec="utf-8"), max_size=8
)
NUMBERS = st.integers(-(10**19), 10**19) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=40,
)
BODIES = st.dictionaries(TEXTS, VALUES, max_size=6)


def plain(value: Any) -> Any:
    """With lists for tuples."""
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return value


def at_once(body: bytes) -> Any:
    try:
        found = loads(body)
    except InvalidRequest:
        return "refused"
    return found if isinstance(found, dict) else "refused"


def in_pieces(body: bytes) -> Any:
    try:
        return plain(asyncio.run(read_large(body, LIMITS)))
    except InvalidRequest:
        return "refused"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(BODIES, st.booleans(), st.sampled_from([None, 1]))
def test_pieces_are_the_whole(body: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode()
    assert in_pieces(text) == at_once(text)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(BODIES, st.data())
def test_what_is_no_json_at_once_is_none_in_pieces(body: dict[str, Any], data: Any) -> None:
    text = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        text[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b"", b",", b"[", b"]", b"{", b"}", b'"', b"\\", b":", b"1", b" ", b"\xff"]
            )
        )
    assert in_pieces(bytes(text)) == at_once(bytes(text))


async def test_lists_of_numbers_are_tuples() -> None:
    body = b'{"prompt": [[1, 2, 3], [4], [], ["a"]], "a": [1, 2], "b": {"c": [[5]]}}'
    assert await read_large(body, LIMITS) == {
        "prompt": [(1, 2, 3), (4,), [], ["a"]],
        "a": [1, 2],
        "b": {"c": [[5]]},
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": [' + b"7," * 2000 + b"7]}", "a list has more than 1000 entries"),
        (b'{"a": [[' + b"7," * 2000 + b"7]]}", "a list has more than 1000 entries"),
        (b'{"a": ["' + b"a" * 13_000 + b'"]}', "a text has more than 1000 characters"),
        (b'{"a": [[' + b"[]," * MAX_PARTS + b"[]]]}", "too many strings, lists and objects"),
        (b'{"a": {' + b'"a":1,' * MAX_PARTS + b'"a":1}}', "too many strings, lists and objects"),
        (b'{"a": [' + b'"a", "b": [' * 10 + b"]}", "not valid JSON"),
        (b'["a"]', "the body must be a JSON object"),
        (b'{"a": "b', "not valid JSON: EOF while parsing a string"),
    ],
)
async def test_what_is_far_beyond_limits_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await read_large(body, LIMITS)


async def test_the_whole_body_has_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "PIECE", 2**15)
    monkeypatch.setattr(json_body, "LOOK", 2**12)
    few = Limits(num_tokens=9, max_positions=9, cache_tokens=9, max_text_chars=2**20)
    with pytest.raises(InvalidRequest, match="too many strings, lists and objects"):
        await read_large(b'{"a": [' + b"[]," * 2**17 + b"[]]}", few)


async def test_of_many_fields_only_the_first_are_read() -> None:
    body = b"{" + b",".join(b'"%d": 1' % number for number in range(5000)) + b"}"
    found = await read_large(body, LIMITS)
    assert len(found) == MAX_FIELDS + 1
    assert next(iter(found)) == "0" and f"more than {MAX_FIELDS} fields" in found
    again = b"{" + b'"a": [1],' * 5000 + b'"a": 1}'
    assert await read_large(again, LIMITS) == {"a": [1], f"more than {MAX_FIELDS} fields": 0}


async def test_brackets_are_looked_at_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nothing else 4 KiB took 7 ms of a processor."""
    monkeypatch.setattr(json_body, "PIECE", 2**15)
    monkeypatch.setattr(json_body, "LOOK", 2**12)
    seen, turned, bracket, take = 0, [0], json_body._Scan._bracket, turns.Turns.take

    def watched(self: json_body._Scan, *of: Any) -> None:
        nonlocal seen
        seen += 1
        bracket(self, *of)

    async def taken(self: turns.Turns) -> None:
        turned.append(seen)
        await take(self)

    monkeypatch.setattr(json_body._Scan, "_bracket", watched)
    monkeypatch.setattr(turns.Turns, "take", taken)
    few = Limits(num_tokens=9, max_positions=9, cache_tokens=9, max_text_chars=2**20)
    data = await read_large(b'{"a": [' + b"[]," * 10_000 + b"[]]}", few)
    assert data == {"a": [[]] * 10_001} and seen == 2 * 10_001 + 4
    assert max(map(sub, turned[1:], turned)) <= MAX_BRACKETS


async def test_others_have_their_turn() -> None:
    body = b'{"prompt": [' + b",".join(b"[1, 2, 3]" for _ in range(500)) + b"]}"
    async with turning() as count:
        await read_large(body, LIMITS)
    assert count() > 1000
