"""Which tokens may come next where the text of an answer has to be of some form.

A ``Grammar`` is compiled once and shared; a ``Guide`` follows one sequence token by token. Its
masks are a function of the constraint and the sequence's own tokens.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from pythia_bento.engine.grammars import Constraint, Vocabulary, compiled, make_tokenizer
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import InvalidRequest, Overloaded

MOST_KEPT = 32  # grammars that nobody follows any more
MOST_LIVE = 64  # different ones that are kept or followed at a time


class Guide:
    """Follows one sequence; a function of its tokens, so preemption is no matter."""

    def __init__(self, matcher: Any, mask: np.ndarray, constraint: Constraint, eos: int) -> None:
        """Takes the matcher over, whose next mask is ``mask``."""
        self._matcher, self._mask, self._constraint, self._eos = matcher, mask, constraint, eos
        self.is_done = False
        """Whether nothing but the end of the text may come."""
        self.error: InvalidRequest | None = None
        """Why it cannot go on."""

    def mask(self, without: Collection[int] = ()) -> np.ndarray:
        """See ``SamplingRow.mask``; leaves ``without`` out where that leaves anything."""
        if not without:
            return self._mask
        left = self._mask.copy()
        for token in without:
            left[token // 32] &= ~np.int32(_bit(token))
        return left if left.any() else self._mask

    def add(self, token: int) -> None:
        """One more token of the text, which the last mask allowed."""
        matcher = self._matcher
        if matcher.consume_token(token) and not matcher.is_stopped():
            self._mask = _next_mask(matcher)
        if matcher.is_error():
            self.error = self._constraint.refused(matcher.get_error())
        self.is_done = matcher.is_stopped() or _is_only(self._mask, self._eos)


class Grammar:
    """A constraint that was compiled for one vocabulary. In any thread."""

    def __init__(self, constraint: Constraint, tokenizer: Any, eos_id: int) -> None:
        """Raises InvalidRequest where it cannot be compiled, or allows no text."""
        self._constraint, self._eos_id = constraint, eos_id
        self._lock = threading.Lock()
        self._matcher = compiled(constraint, tokenizer)
        self._first = _next_mask(self._matcher)
        if self._matcher.is_error():
            raise constraint.refused(self._matcher.get_error())
        if _is_only(self._first, eos_id) or not self._first.any():
            raise constraint.refused("it allows no text")

    def guide(self) -> Guide:
        """For a sequence that has no token yet."""
        with self._lock:
            matcher = self._matcher.deep_copy()
        return Guide(matcher, self._first, self._constraint, self._eos_id)


class Grammars:
    """Those of one vocabulary: compiled when first asked for, the latest are kept."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: Any = None
        self._lock = threading.Lock()  # never held for long
        self._compiling = threading.Lock()  # one at a time
        self._kept: OrderedDict[Constraint, Grammar] = OrderedDict()
        self._live: WeakValueDictionary[Constraint, Grammar] = WeakValueDictionary()

    def warm(self) -> None:
        """Make what all grammars need; nothing without the library."""
        with self._compiling, suppress(ImportError):
            self._make_tokenizer()

    def get(self, constraint: Constraint) -> Grammar:
        """Compiled now where it is not known; raises InvalidRequest, or Overloaded."""
        if (grammar := self._known(constraint)) is not None:
            return grammar
        with self._compiling:
            if (grammar := self._known(constraint)) is None:
                grammar = self._compile(constraint)
            return grammar

    def _known(self, constraint: Constraint) -> Grammar | None:
        with self._lock:
            if (grammar := self._live.get(constraint)) is not None:
                self._keep(constraint, grammar)
            return grammar

    def _compile(self, constraint: Constraint) -> Grammar:
        self._check_room(constraint)
        grammar = Grammar(constraint, self._make_tokenizer(), self._vocabulary.eos_id)
        with self._lock:
            self._live[constraint] = grammar
            self._keep(constraint, grammar)
        return grammar

    def _keep(self, constraint: Constraint, grammar: Grammar) -> None:
        self._kept[constraint] = grammar
        self._kept.move_to_end(constraint)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def _check_room(self, constraint: Constraint) -> None:
        with self._lock:
            if len(self._live) >= MOST_LIVE:
                self._kept.clear()  # those that nobody follows go at once
            if len(self._live) >= MOST_LIVE:
                raise Overloaded(
                    f"{constraint.field} would be one more than {MOST_LIVE} different constraints "
                    "that are followed at a time; try again later",
                    param=constraint.field,
                )

    def _make_tokenizer(self) -> Any:
        if self._tokenizer is None:
            self._tokenizer = make_tokenizer(self._vocabulary)
        return self._tokenizer


_lock = threading.Lock()
_by_tokens: dict[bytes, Grammars] = {}
_by_tokenizer: WeakKeyDictionary[Tokenizer, Grammars] = WeakKeyDictionary()


def grammars_of(tokenizer: Tokenizer) -> Grammars:
    """Tokenizers with the same tokens share theirs. In any thread."""
    with _lock:
        if (known := _by_tokenizer.get(tokenizer)) is None:
            tokens = [tokenizer.token_bytes(id) for id in range(tokenizer.num_tokens)]
            special = sorted(tokenizer.special_ids)
            vocabulary = Vocabulary(tokens, special, tokenizer.eos_id, tokenizer.encode)
            digest = hashlib.sha256(repr(vocabulary[:3]).encode()).digest()
            known = _by_tokens.setdefault(digest, Grammars(vocabulary))
            _by_tokenizer[tokenizer] = known
        return known


def _next_mask(matcher: Any) -> np.ndarray:
    """int32 [W]; the library's words are these."""
    return np.frombuffer(matcher.compute_bitmask(), np.int32)


def _is_only(mask: np.ndarray, token: int) -> bool:
    word, (places,) = token // 32, mask.nonzero()
    return places.tolist() == [word] and int(mask[word]) & 0xFFFFFFFF == 1 << token % 32


def _bit(token: int) -> int:
    """Of its word, as a signed integer of 32 bits."""
    bit = 1 << token % 32
    return bit - (1 << 32) if bit >> 31 else bit
