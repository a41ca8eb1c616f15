"""Masks of one sequence: what they allow, when it is done, and how many grammars there may be."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pythia_bento.engine import grammars, guides
from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.guides import Grammar, Grammars, Guide, grammars_of
from pythia_bento.engine.sequence import Sequence
from pythia_bento.errors import InvalidRequest, Overloaded
from tests.constraints import CASES
from tests.tokenizer_parts import small_tokenizer
from tests.unit.engine.toy import TOKENIZER, request

EOS = TOKENIZER.eos_id


def grammar(kind: str, text: str) -> Grammar:
    return grammars_of(TOKENIZER).get(Constraint("structured_outputs", kind, text))  # type: ignore[arg-type]


def allowed(mask: np.ndarray) -> set[int]:
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def follow(guide: Guide, text: str) -> None:
    for token in TOKENIZER.encode(text):
        assert token in allowed(guide.mask())
        guide.add(token)


def ids(*texts: str) -> set[int]:
    return {TOKENIZER.encode(text)[0] for text in texts}


def test_a_mask_has_what_may_come_next() -> None:
    guide = grammar("regex", "(th|a)*i?").guide()
    assert allowed(guide.mask()) == ids("t", "th", "a", "i") | {EOS}
    follow(guide, "ath")
    assert allowed(guide.mask()) == ids("t", "th", "a", "i") | {EOS}
    assert not guide.is_done
    follow(guide, "i")
    assert guide.is_done and guide.error is None


def test_it_is_done_where_only_the_end_may_come() -> None:
    guide = grammar("choice", '["the", "then"]').guide()
    follow(guide, "the")
    assert not guide.is_done and allowed(guide.mask()) == ids("n") | {EOS}
    follow(guide, "n")
    assert guide.is_done


def test_tokens_are_left_out_where_others_are_left() -> None:
    guide = grammar("regex", "a*").guide()
    assert allowed(guide.mask({EOS})) == ids("a")
    assert allowed(guide.mask()) == ids("a") | {EOS}, "the mask itself stays as it is"
    assert allowed(guide.mask({EOS, *ids("a")})) == ids("a") | {EOS}
    word = Guide(None, np.full(2, -1, np.int32), Constraint("f", "regex", "a"), 0)
    assert allowed(word.mask({31, 32})) == set(range(64)) - {31, 32}


def test_guides_of_one_grammar_do_not_know_each_other() -> None:
    shared = grammar("regex", "ab|cd")
    first, second = shared.guide(), shared.guide()
    follow(first, "a")
    assert allowed(first.mask()) == ids("b")
    assert allowed(second.mask()) == ids("a", "c")


def test_a_token_that_was_not_allowed_is_an_error() -> None:
    guide = grammar("regex", "ab").guide()
    guide.add(TOKENIZER.encode("x")[0])
    assert guide.error is not None and guide.error.param == "structured_outputs"


def test_a_limit_that_is_met_later_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(grammars._LIMITS, "max_lexer_states", 300)
    own = Grammars(grammars_of(TOKENIZER)._vocabulary)
    guide = own.get(Constraint("guided_regex", "regex", "[a-z ]*a[a-z ]{300}")).guide()
    draw, tokens = random.Random(1), 0
    while guide.error is None:
        guide.add(draw.choice(sorted(allowed(guide.mask()) - {EOS})))
        tokens += 1
    assert tokens > 3
    assert guide.error.message.startswith("guided_regex cannot be followed: ")
    assert "too many states" in guide.error.message and guide.error.message.isprintable()


@pytest.mark.parametrize("text", ["", "x{0}"])
def test_what_allows_no_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="it allows no text"):
        grammar("regex", text)


def test_tokenizers_with_the_same_tokens_share_grammars() -> None:
    again = small_tokenizer()
    assert grammars_of(again) is grammars_of(TOKENIZER)
    constraint = CASES["json"].constraint
    assert grammars_of(again).get(constraint) is grammars_of(TOKENIZER).get(constraint)


def test_as_many_grammars_as_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "MOST_KEPT", 2)
    monkeypatch.setattr(guides, "MOST_LIVE", 3)
    own = Grammars(grammars_of(TOKENIZER)._vocabulary)
    asked = [Constraint("f", "regex", f"a{{{count}}}") for count in range(1, 6)]
    for constraint in asked:  # nobody holds them
        own.get(constraint)
    held = [own.get(constraint) for constraint in asked[:3]]
    with pytest.raises(Overloaded, match="f would be one more than 3 different constraints"):
        own.get(asked[3])
    assert own.get(asked[2]).guide() is not None
    del held[0]
    assert own.get(asked[3]).guide() is not None


def guided(kind: str, text: str, **params: object) -> Sequence:
    constraint = Constraint("structured_outputs", kind, text)  # type: ignore[arg-type]
    asked = request(prompt=(5, 6), constraint=constraint, **params)
    return Sequence(asked, 0, 0, TOKENIZER, 2, grammar=grammar(kind, text))


def test_a_sequence_stops_where_its_form_is_complete() -> None:
    sequence = guided("regex", "ab", max_tokens=9, ignore_eos=True)
    text = "".join(sequence.accept(token) for token in TOKENIZER.encode("ab"))
    assert (text, sequence.finish_reason, sequence.stop_reason) == ("ab", "stop", None)


def test_a_form_that_is_complete_with_the_last_token_ends_with_stop() -> None:
    sequence = guided("regex", "ab", max_tokens=2)
    for token in TOKENIZER.encode("ab"):
        sequence.accept(token)
    assert sequence.finish_reason == "stop"


def test_the_end_ends_it_though_ends_are_ignored() -> None:
    sequence = guided("regex", "a*", max_tokens=9, ignore_eos=True)
    sequence.accept(EOS)
    assert sequence.finish_reason == "stop"


def test_min_tokens_keep_the_end_away_while_there_is_something_else() -> None:
    sequence = guided("regex", "a{1,2}", max_tokens=9, min_tokens=9)
    assert sequence.has_options and sequence.biases == ()
    for count in range(2):
        row = sequence.sampling_row()
        assert row.mask is not None and allowed(row.mask) == ids("a") and row.bias == (), count
        sequence.accept(*ids("a"))
    assert sequence.finish_reason == "stop"


def test_an_error_ends_the_sequence() -> None:
    sequence = guided("regex", "ab", max_tokens=9)
    sequence.accept(TOKENIZER.encode("x")[0])
    assert sequence.finish_reason == "error" and isinstance(sequence.error, InvalidRequest)
