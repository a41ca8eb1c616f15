"""What a transport says of a token, made once for each id."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from weakref import WeakKeyDictionary, ref

from pythia_bento.engine.tokenizer import Tokenizer

Make = Callable[[Tokenizer, int], bytes]


class PerId(dict[int, bytes]):
    """Bytes by id, at most one entry for each row of a model's head."""

    def __init__(self, make: Make, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._make = make
        self._tokenizer = ref(tokenizer)  # which this must not keep alive, as it lives as long

    def __missing__(self, id: int) -> bytes:
        tokenizer = self._tokenizer()
        assert tokenizer is not None  # whoever asks has it
        self[id] = made = self._make(tokenizer, id)
        return made


def per_id(make: Make) -> Callable[[Tokenizer], PerId]:
    """Keep what ``make`` says of a tokenizer's ids, as long as the tokenizer lives."""
    kept: WeakKeyDictionary[Tokenizer, PerId] = WeakKeyDictionary()

    @wraps(make)
    def of(tokenizer: Tokenizer) -> PerId:
        found = kept.get(tokenizer)
        if found is None:
            found = kept[tokenizer] = PerId(make, tokenizer)
        return found

    return of
