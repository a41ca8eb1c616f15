"""Log-probabilities in the shape of OpenAI's completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import orjson

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.offsets import TokenOffsets
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.handlers.per_id import PerId
from pythia_bento.server.http.json_tokens import (
    alternatives,
    json_array,
    json_object,
    names_by_id,
    names_by_text,
    numbers,
)

Columns = dict[str, list[bytes]]
"""Entries of JSON by the name of their list."""
NAMES = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


class LogprobsBuilder:
    """Builds ``tokens``, ``token_logprobs``, ``top_logprobs`` and ``text_offset`` bit by bit.

    Offsets count characters of the answer's ``text``, in which generated text begins at ``start``;
    see TokenOffsets. ``as_ids`` names tokens ``token_id:<id>``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        start: int = 0,
        skip_special_tokens: bool = True,
        as_ids: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._as_ids = as_ids
        self._offsets = TokenOffsets(start)

    @cached_property
    def _names(self) -> PerId:
        return (names_by_id if self._as_ids else names_by_text)(self._tokenizer)

    def first(self, id: int, start: int) -> Columns:
        """The prompt's first token, which has no log-probability."""
        return _columns([(self._names[id], b"null", b"null", b"%d" % start)])

    def prompt(self, logprobs: PromptLogprobs, num_top: int, starts: Iterator[int]) -> Columns:
        """Further tokens of the prompt; takes as many ``starts``."""
        scored, names = logprobs.limited(num_top), self._names
        values = numbers(scored.values)
        own = [names[id] for id in scored.ids.tolist()]
        begins = [b"%d" % start for start in islice(starts, len(own))]
        tops = alternatives(names, scored, own, values)
        return dict(zip(NAMES, (own, values, tops, begins), strict=True))

    def generated(self, logprobs: Iterable[TokenLogprob]) -> Columns:
        """Tokens of one delta."""
        return _columns([self._entry(logprob) for logprob in logprobs])

    def _start(self, id: int) -> int:
        return self._offsets.push(b"" if id in self._skipped else self._tokenizer.token_bytes(id))

    def _entry(self, logprob: TokenLogprob) -> tuple[bytes, ...]:
        own, value = self._names[logprob.token_id], orjson.dumps(logprob.logprob)
        best = [(self._names[id], orjson.dumps(top)) for id, top in logprob.top]
        tops = json_object((name, b"%b:%b" % (name, top)) for name, top in (*best, (own, value)))
        return own, value, tops, b"%d" % self._start(logprob.token_id)


def by_id(tokenizer: Tokenizer, logprobs: PromptLogprobs, num_top: int) -> list[dict[str, Any]]:
    """Log-probabilities of a prompt in vLLM's shape: an object by token id each.

    ``rank`` counts from 1, among all rows of the model's head.
    """
    shown = []
    for token, rank in zip(logprobs.limited(num_top), logprobs.ranks.tolist(), strict=True):
        ranks = {token.token_id: rank}
        ranks |= {id: place for place, (id, _) in enumerate(token.top, start=1)}
        values = {token.token_id: token.logprob, **dict(token.top)}
        shown.append(
            {
                str(id): {
                    "logprob": value,
                    "rank": ranks[id],
                    "decoded_token": tokenizer.token_text(id),
                }
                for id, value in values.items()
            }
        )
    return shown


def _columns(entries: list[tuple[bytes, ...]]) -> Columns:
    return {name: [entry[place] for entry in entries] for place, name in enumerate(NAMES)}


def joined(parts: Iterable[Columns]) -> dict[str, Any]:
    """Several parts of one answer, end to end, for orjson."""
    whole = _columns([])
    for part in parts:
        for name, column in part.items():
            whole[name] += column
    return {name: json_array(column) for name, column in whole.items()}
