"""Tokens and numbers as JSON, made from columns: a prompt may have thousands of tokens.

What JSON says of a token is made once for each id. orjson writes the numbers, all with one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import add
from typing import Any

import numpy as np
import orjson

from pythia_bento.engine.logprobs import Array, PromptLogprobs
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.handlers.per_id import PerId, per_id
from pythia_bento.handlers.streamed import shown_prompt


@per_id
def names_by_text(tokenizer: Tokenizer, id: int) -> bytes:
    """Each token's text as a JSON string."""
    return orjson.dumps(tokenizer.token_text(id))


@per_id
def names_by_id(tokenizer: Tokenizer, id: int) -> bytes:
    """``token_id:<id>``, so that no two look alike."""
    return b'"token_id:%d"' % id


@per_id
def _heads(tokenizer: Tokenizer, id: int) -> bytes:
    """How the object of each token begins, up to its log-probability."""
    shown = orjson.dumps({"id": id, "text": tokenizer.token_text(id)})
    return shown[:-1] + b',"logprob":'


def numbers(values: Array) -> list[bytes]:
    """Each of fp32 [N] as JSON has a double of the same value."""
    written = orjson.dumps(values.astype(np.float64), option=orjson.OPT_SERIALIZE_NUMPY)
    return written[1:-1].split(b",") if len(values) else []


def json_array(entries: Iterable[bytes]) -> orjson.Fragment:
    """Of entries that are JSON."""
    return orjson.Fragment(b"[" + b",".join(entries) + b"]")


async def json_tokens(tokenizer: Tokenizer, scored: PromptLogprobs) -> Any:
    """``shown_prompt`` for an answer of JSON."""
    if scored.num_top:
        return await shown_prompt(tokenizer, scored)
    heads = _heads(tokenizer)
    tokens = map(add, [heads[id] for id in scored.ids.tolist()], numbers(scored.values))
    return orjson.Fragment(b"[" + b"},".join(tokens) + b"}" * bool(scored) + b"]")


def alternatives(
    names: PerId, scored: PromptLogprobs, own: Sequence[bytes], values: Sequence[bytes]
) -> list[bytes]:
    """For each token an object by name: the best ones and always the token itself."""
    columns = [
        _fields([names[id] for id in ids.tolist()], numbers(top))
        for ids, top in zip(scored.top_ids, scored.top_values, strict=True)
    ]
    if len(columns) == 1:  # as lm-eval asks for them
        return _objects_of_two(columns[0], _fields(own, values))
    rows = zip(*columns, _fields(own, values), strict=True)
    return [json_object(row) for row in rows]


Field = tuple[bytes, bytes]
"""A name, and the same with a value."""


def _fields(names: Sequence[bytes], values: Sequence[bytes]) -> Iterator[Field]:
    return zip(names, map(b":".join, zip(names, values, strict=True)), strict=True)


def _objects_of_two(first: Iterable[Field], second: Iterable[Field]) -> list[bytes]:
    """``json_object`` of pairs, in a third of the time."""
    return [
        b"{%b}" % field if name == other else b"{%b,%b}" % (field, further)
        for (name, field), (other, further) in zip(first, second, strict=True)
    ]


def json_object(fields: Iterable[Field]) -> bytes:
    """The first field of each name counts."""
    found: dict[bytes, bytes] = {}
    for name, field in fields:
        found.setdefault(name, field)
    return b"{" + b",".join(found.values()) + b"}"
