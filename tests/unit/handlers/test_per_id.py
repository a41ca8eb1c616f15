"""What is kept for each id, and for how long."""

from __future__ import annotations

import gc
import weakref

from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.handlers.per_id import per_id
from pythia_bento.server.grpc import messages
from pythia_bento.server.http import json_tokens
from tests.tokenizer_parts import small_tokenizer


def test_it_is_made_once_for_each_tokenizer_and_goes_with_it() -> None:
    made: list[tuple[int, int]] = []

    @per_id
    def name(tokenizer: Tokenizer, id: int) -> bytes:
        made.append((tokenizer.num_tokens, id))
        return b"%d" % id

    one, other = small_tokenizer(), small_tokenizer()
    assert [name(one)[5], name(one)[5], name(other)[5]] == [b"5"] * 3
    assert len(made) == 2
    for kept in (json_tokens.names_by_text, json_tokens._heads, messages._heads):
        assert kept(one)[7]
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
