"""Where tokens begin, against a decoder that tells which bytes each character is made of."""

from __future__ import annotations

import codecs
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.checkpoints.bundle import BUNDLED_ROOT
from pythia_bento.engine.offsets import TokenOffsets, token_starts
from pythia_bento.engine.tokenizer import Tokenizer

# Lead bytes of each length, what may follow some of them only, and what never stands in UTF-8.
SHARP = (0x41, 0x7F, 0x80, 0x8F, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF4, 0xFF)


def owners(data: bytes) -> list[int]:
    """For each byte, which character of ``data.decode(errors="replace")`` it belongs to."""
    wrong: dict[int, int] = {}

    def note(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        wrong[error.start] = error.end
        return "\ufffd", error.end

    codecs.register_error("tests.offsets", note)
    text = data.decode("utf-8", "tests.offsets")
    assert text == data.decode("utf-8", "replace")
    found: list[int] = []
    for index, char in enumerate(text):
        size = wrong.get(len(found), len(found) + len(char.encode())) - len(found)
        found += [index] * size
    assert len(found) == len(data)
    return found


PIECES = st.lists(
    st.lists(st.sampled_from(SHARP), min_size=1, max_size=5).map(bytes)
    | st.text(st.sampled_from("aé€\ufffd\U0001f600"), min_size=1).map(str.encode)
)


@given(PIECES, st.data())
def test_a_token_begins_at_the_character_of_its_first_byte(
    pieces: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(pieces)
    if len(whole) > 1:  # characters in pieces, too
        cut = data.draw(st.integers(1, len(whole) - 1))
        pieces = [*pieces, whole[:cut], whole[cut:]]
        whole += whole
    found, place = owners(whole), 0
    starts = token_starts(pieces)
    for piece, start in zip(pieces, starts, strict=True):
        assert start == found[place], (pieces, place)
        place += len(piece)


def test_a_token_without_bytes_begins_where_the_one_before_it_is_unfinished() -> None:
    assert token_starts([b"a", b"", b"\xe2\x82", b"", b"\xac", b"", b"\xe2", b"a", b""]) == [
        *(0, 1, 1, 1, 1, 2, 2, 3, 4),
    ]


def test_generated_text_begins_after_the_prompt() -> None:
    offsets = TokenOffsets(7)
    assert [offsets.push(piece) for piece in (b"a", b"\xe2", b"b")] == [7, 8, 9]


@pytest.fixture(scope="module")
def pythias() -> Tokenizer:
    return Tokenizer.from_file(BUNDLED_ROOT / "step0" / "tokenizer.json")


COMBINING = "\u0300\u0301\u0302\u0308\u0323\u0327\u0328\u0345\u05b4\u093c\u3099"
JAMO = "\u1100\u1112\u1161\u1175\u11a8\u11c2\uac00\ud7a3"
# Never composed; composed of something that is not theirs; and more bytes than characters.
OTHERS = "\u0958\u0344\u212b\u2126\u1e69\ufb1f\U0001d15e\u4e2d\U0001f469\u200d\U0001f4bb\ufe0f"
CHARS_FOR_TEXTS = "aeoAs  \n.1" + COMBINING + JAMO + OTHERS
TEXTS = st.text(st.sampled_from(CHARS_FOR_TEXTS) | st.characters(max_codepoint=0x2FFF), max_size=40)


@given(st.sampled_from(["NFC", "NFD", ""]), TEXTS)
def test_starts_are_in_the_text_that_was_given(pythias: Tokenizer, form: str, text: str) -> None:
    text = unicodedata.normalize(form, text) if form else text  # type: ignore[arg-type]
    ids, starts = pythias.encode(text), pythias.starts(text)
    assert len(ids) == len(starts)
    assert starts == sorted(starts)
    normal = [unicodedata.normalize("NFC", text[:end]) for end in range(len(text) + 1)]
    for count, start in enumerate(starts):
        before = b"".join(map(pythias.token_bytes, ids[:count]))
        made = before.decode(errors="ignore")
        if made.encode() != before:  # in the middle of a character
            made_of = normal[-1][: len(made) + 1]
            assert len(normal[start]) <= len(made_of)
        elif made in normal:
            assert start == normal.index(made), (text, ids, starts)
