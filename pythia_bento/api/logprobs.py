"""Log-probabilities in the shape of OpenAI's completions."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

from pythia_bento.engine.params import TokenLogprob
from pythia_bento.engine.tokenizer import Tokenizer

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class LogprobsBuilder:
    """Builds ``tokens``, ``token_logprobs``, ``top_logprobs`` and ``text_offset`` bit by bit.

    Offsets count characters of the answer's ``text``; a token that ends or continues a character
    begins where that character begins.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = _Utf8Decoder("replace")
        self._offset = 0

    def echo(self, prompt: tuple[int, ...], logprobs: list[TokenLogprob] | None) -> dict[str, Any]:
        """The prompt's tokens. The first one has no log-probability."""
        first = self._entry(prompt[0], None, is_prompt=True)
        rest = [self._entry(lp.token_id, lp, is_prompt=True) for lp in logprobs or ()]
        return _columns([first, *rest])

    def generated(self, logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
        """Tokens of one delta."""
        return _columns([self._entry(lp.token_id, lp, is_prompt=False) for lp in logprobs])

    def _entry(self, id: int, logprob: TokenLogprob | None, is_prompt: bool) -> tuple[Any, ...]:
        start = self._offset
        # An echoed prompt shows its special tokens, generated text does not.
        if is_prompt or id not in self._tokenizer.special_ids:
            self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(id)))
        shown = self._tokenizer.token_text(id)
        if logprob is None:
            return shown, None, None, start
        return shown, logprob.logprob, self._top(shown, logprob), start

    def _top(self, shown: str, logprob: TokenLogprob) -> dict[str, float]:
        """The best alternatives and always the token itself, by falling probability."""
        top: dict[str, float] = {}
        for id, value in logprob.top:
            top.setdefault(self._tokenizer.token_text(id), value)
        top.setdefault(shown, logprob.logprob)
        return top


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
