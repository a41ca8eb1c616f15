"""Tokens and numbers as JSON, made from columns: a prompt may have thousands of tokens.

What JSON says of a token is made once for each id. orjson writes the numbers, all with one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import add
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from pythia_bento.engine.logprobs import Array, PromptLogprobs
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.handlers.streamed import shown_prompt


class TokenNames(dict[int, bytes]):
    """The name of each id as a JSON string: its text, or ``token_id:<id>``."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool = False) -> None:
        super().__init__()
        self._text = "token_id:{}".format if as_ids else tokenizer.token_text

    def __missing__(self, id: int) -> bytes:
        self[id] = name = orjson.dumps(self._text(id))
        return name


class _Heads(dict[int, bytes]):
    """How the object of each id begins, up to its log-probability."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, id: int) -> bytes:
        shown = orjson.dumps({"id": id, "text": self._tokenizer.token_text(id)})
        self[id] = head = shown[:-1] + b',"logprob":'
        return head


_NAMES: tuple[WeakKeyDictionary[Tokenizer, TokenNames], ...]
_NAMES = WeakKeyDictionary(), WeakKeyDictionary()
_HEADS: WeakKeyDictionary[Tokenizer, _Heads] = WeakKeyDictionary()


def token_names(tokenizer: Tokenizer, *, as_ids: bool = False) -> TokenNames:
    """Those of a tokenizer, kept as long as it."""
    names = _NAMES[as_ids]
    if tokenizer not in names:
        names[tokenizer] = TokenNames(tokenizer, as_ids=as_ids)
    return names[tokenizer]


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
    if tokenizer not in _HEADS:
        _HEADS[tokenizer] = _Heads(tokenizer)
    heads = _HEADS[tokenizer]
    tokens = map(add, [heads[id] for id in scored.ids.tolist()], numbers(scored.values))
    return orjson.Fragment(b"[" + b"},".join(tokens) + b"}" * bool(scored) + b"]")


def alternatives(
    names: TokenNames, scored: PromptLogprobs, own: Sequence[bytes], values: Sequence[bytes]
) -> list[bytes]:
    """For each token an object by name: the best ones and always the token itself."""
    columns = [
        _fields([names[id] for id in ids.tolist()], numbers(top))
        for ids, top in zip(scored.top_ids, scored.top_values, strict=True)
    ]
    rows = zip(*columns, _fields(own, values), strict=True)
    return [json_object(row) for row in rows]


Field = tuple[bytes, bytes]
"""A name, and the same with a value."""


def _fields(names: Sequence[bytes], values: Sequence[bytes]) -> Iterator[Field]:
    return zip(names, map(b":".join, zip(names, values, strict=True)), strict=True)


def json_object(fields: Iterable[Field]) -> bytes:
    """The first field of each name counts."""
    found: dict[bytes, bytes] = {}
    for name, field in fields:
        found.setdefault(name, field)
    return b"{" + b",".join(found.values()) + b"}"
