"""Tokenizer: bytes in, the same bytes out."""

from __future__ import annotations

import sys
import threading

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from pythia_bento.engine.offsets import token_starts
from pythia_bento.engine.tokenizer import LONG_TEXT, Tokenizer
from pythia_bento.errors import CheckpointError, InvalidRequest
from tests.tokenizer_parts import raw_tokenizer, small_tokenizer

TOKENIZER = small_tokenizer()
IDS = st.lists(st.integers(0, TOKENIZER.num_tokens - 1))


def test_counts_every_token_and_finds_the_end_of_text():
    assert TOKENIZER.num_tokens == 268
    assert TOKENIZER.eos_id == 0
    assert TOKENIZER.special_ids == {0, 1}


@given(st.text())
def test_decoding_undoes_encoding(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(IDS, st.booleans())
def test_decodes_as_the_library_does(ids, skip):
    wanted = raw_tokenizer().decode(ids, skip_special_tokens=skip)
    assert TOKENIZER.decode(ids, skip_special_tokens=skip) == wanted


@given(IDS)
def test_tokens_begin_where_they_do_one_by_one(ids):
    assert TOKENIZER.token_starts(ids) == token_starts(map(TOKENIZER.token_bytes, ids))
    whole = TOKENIZER.encode("Plain text with \u00e9.")
    assert TOKENIZER.token_starts(whole) == token_starts(map(TOKENIZER.token_bytes, whole))


def test_adds_nothing_and_ignores_truncation_in_the_file(tmp_path):
    inner = raw_tokenizer()
    inner.enable_truncation(2)
    inner.enable_padding(length=8)
    inner.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_file(tmp_path / "tokenizer.json").encode("abcd")) == 4


def test_lone_surrogates_are_refused():
    with pytest.raises(InvalidRequest, match="lone surrogate at character 2") as caught:
        TOKENIZER.encode("ab\ud800")
    assert caught.value.param == "prompt"


def test_shows_single_tokens():
    euro = TOKENIZER.encode("€")
    assert [TOKENIZER.token_text(id) for id in euro] == [
        r"bytes:\xe2",
        r"bytes:\x82",
        r"bytes:\xac",
    ]
    assert TOKENIZER.token_text(TOKENIZER.encode(" the")[0]) == " the"
    assert TOKENIZER.token_text(0) == "<|endoftext|>"
    assert TOKENIZER.token_text(268) == "<|no token 268|>"
    assert TOKENIZER.token_bytes(268) == b""


def test_a_missing_or_damaged_file_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        Tokenizer.from_file(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as a tokenizer"):
        Tokenizer.from_file(path)


def test_other_kinds_of_tokenizer_are_refused():
    plain = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    with pytest.raises(CheckpointError, match="not ByteLevel"):
        Tokenizer(plain)
    plain.decoder = decoders.ByteLevel()
    with pytest.raises(CheckpointError, match=r"no <\|endoftext\|> token"):
        Tokenizer(plain)
    gaps = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 2}, merges=[]))
    gaps.decoder = decoders.ByteLevel()
    with pytest.raises(CheckpointError, match="gaps"):
        Tokenizer(gaps)


@pytest.fixture
def never_switches():
    """Threads have the interpreter until they let go of it themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("never_switches")
@pytest.mark.parametrize("method", [TOKENIZER.encode, TOKENIZER.starts])
def test_others_run_while_a_long_text_is_tokenised(method):
    text = "plain text " * LONG_TEXT
    begin, has_run = threading.Lock(), []
    begin.acquire()
    other = threading.Thread(target=lambda: begin.acquire() and has_run.append(True))
    other.start()
    begin.release()  # from here on nobody but ``method`` lets go of the interpreter
    for _ in range(100):  # a machine may have other things to do than to wake a thread
        method(text)
        if has_run:
            break
    assert has_run
    other.join()


def test_long_texts_have_the_ids_of_short_ones():
    words = [f"word {number}\n" for number in range(LONG_TEXT)]
    assert TOKENIZER.encode("".join(words)) == [
        id for word in words for id in TOKENIZER.encode(word)
    ]
