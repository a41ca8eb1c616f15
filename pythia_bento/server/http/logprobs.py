"""Log-probabilities in the shape of OpenAI's completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.offsets import TokenOffsets
from pythia_bento.engine.tokenizer import Tokenizer


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

    def first(self, id: int, start: int) -> dict[str, Any]:
        """The prompt's first token, which has no log-probability."""
        return _columns([(self._shown(id), None, None, start)])

    def prompt(
        self, logprobs: PromptLogprobs, num_top: int, starts: Iterator[int]
    ) -> dict[str, Any]:
        """Further tokens of the prompt; takes as many ``starts``."""
        scored = logprobs.limited(num_top)
        values = scored.values.tolist()
        shown = [self._shown(id) for id in scored.ids.tolist()]
        if num_top:
            tops = [self._top(*pair) for pair in zip(shown, scored, strict=True)]
        else:
            tops = [{own: value} for own, value in zip(shown, values, strict=True)]
        return {
            "tokens": shown,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": list(islice(starts, len(shown))),
        }

    def generated(self, logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
        """Tokens of one delta."""
        return _columns([self._entry(logprob) for logprob in logprobs])

    def _start(self, id: int) -> int:
        return self._offsets.push(b"" if id in self._skipped else self._tokenizer.token_bytes(id))

    def _entry(self, logprob: TokenLogprob) -> tuple[Any, ...]:
        shown, start = self._shown(logprob.token_id), self._start(logprob.token_id)
        return shown, logprob.logprob, self._top(shown, logprob), start

    def _top(self, shown: str, logprob: TokenLogprob) -> dict[str, float]:
        """The best alternatives and always the token itself, by falling probability."""
        top: dict[str, float] = {}
        for id, value in logprob.top:
            top.setdefault(self._shown(id), value)
        top.setdefault(shown, logprob.logprob)
        return top

    def _shown(self, id: int) -> str:
        return f"token_id:{id}" if self._as_ids else self._tokenizer.token_text(id)


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


def _columns(entries: list[tuple[Any, ...]]) -> dict[str, Any]:
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return {name: [entry[place] for entry in entries] for place, name in enumerate(names)}


def joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Several parts of one answer, end to end."""
    whole: dict[str, Any] = _columns([])
    for part in parts:
        for name, column in part.items():
            whole[name] += column
    return whole
