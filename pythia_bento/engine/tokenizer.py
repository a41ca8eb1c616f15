"""Text to token ids and back, over the byte-level BPE of ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from pythia_bento.engine.offsets import token_starts
from pythia_bento.errors import CheckpointError, InvalidRequest

END_OF_TEXT = "<|endoftext|>"
# Characters from which on a text takes some milliseconds: others have the interpreter meanwhile.
# It costs a thread of the library's to let go of it, which does not pay for less.
LONG_TEXT = 4096


class Tokenizer:
    """Pythia's tokenizer. Every token stands for fixed bytes; a text is their concatenation."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        """Raises CheckpointError when the tokenizer is not byte-level or has no end of text."""
        inner.no_truncation()
        inner.no_padding()
        inner.post_processor = None  # it adds nothing here, and cuts spaces off ``starts``
        self._inner = inner
        self._bytes = _bytes_by_id(inner)
        self._shown = [_shown(data) for data in self._bytes]
        added = inner.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in added.items() if token.special)
        self.eos_id = _end_of_text(inner)
        self.whole_texts = self._whole_texts()
        self._num_chars = np.array([_num_chars(data) for data in self._bytes], np.int32)

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read ``tokenizer.json``; raises CheckpointError when it is missing or damaged."""
        if not path.is_file():
            raise CheckpointError(f"checkpoint has no {path.name}: {path.parent}")
        return cls.from_bytes(path.read_bytes(), path)

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Tokenizer:
        """The same of what was read from ``path``."""
        try:
            inner = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{path} cannot be read as a tokenizer: {error}") from None
        return cls(inner)

    @property
    def num_tokens(self) -> int:
        """Ids from here on have no token, even where the model has logits for them."""
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, nothing added; raises InvalidRequest on lone surrogates."""
        check_unicode(text, "prompt")
        if len(text) < LONG_TEXT:
            return list(self._inner.encode(text, add_special_tokens=False).ids)
        # For one text the library keeps the interpreter to the end, for a batch it does not.
        return list(self._inner.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def starts(self, text: str) -> list[int]:
        """Where each token of ``encode(text)`` begins, in characters of ``text`` itself.

        Tokens are of the text's normal form, whose characters may be fewer or more.
        """
        encoding = self._inner.encode_batch([text], add_special_tokens=False)[0]
        return [start for start, _ in encoding.offsets]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD."""
        skipped = self.special_ids if skip_special_tokens else frozenset()
        kept = [id for id in ids if id not in skipped] if skipped else ids
        known, end = self._bytes, len(self._bytes)  # as ``token_bytes``, without its calls
        data = b"".join([known[id] if 0 <= id < end else b"" for id in kept])
        return data.decode("utf-8", errors="replace")

    def token_starts(self, ids: Sequence[int]) -> list[int]:
        """Where each of some tokens, which all exist, begins in their ``decode``d text."""
        counts = self._num_chars[np.asarray(ids, np.int32)]
        if (counts < 0).any():
            return token_starts([self._bytes[id] for id in ids], counts.tolist())
        starts: list[int] = (np.cumsum(counts) - counts).tolist()
        return starts

    def _whole_texts(self) -> dict[int, str]:
        """Texts of the tokens that are whole characters, special tokens left out."""
        texts = {}
        for id, data in enumerate(self._bytes):
            is_whole = (text := data.decode("utf-8", errors="ignore")).encode() == data
            if is_whole and id not in self.special_ids:
                texts[id] = text
        return texts

    def token_bytes(self, id: int) -> bytes:
        """The bytes a token stands for; none for an id without a token."""
        return self._bytes[id] if 0 <= id < len(self._bytes) else b""

    def token_name(self, id: int) -> str | None:
        """A token as the vocabulary spells it: a space is ``Ġ``, other bytes likewise."""
        name: str | None = self._inner.id_to_token(id)
        return name

    def token_text(self, id: int) -> str:
        r"""How to show one token: its text, ``bytes:\xe2\x80`` for part of a character.

        Different ids are shown differently wherever their bytes differ.
        """
        if not 0 <= id < len(self._bytes):
            return f"<|no token {id}|>"
        return self._shown[id]

    def token_texts(self, ids: Iterable[int]) -> list[str]:
        """``token_text`` of ids that all have a token."""
        return [self._shown[id] for id in ids]


def _num_chars(data: bytes) -> int:
    """-1 where they are not whole characters."""
    try:
        return len(data.decode("utf-8"))
    except UnicodeDecodeError:
        return -1


def _shown(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def check_unicode(text: str, param: str) -> None:
    """Raise InvalidRequest when ``text`` holds a lone surrogate, which no encoding can carry."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{param} is not valid Unicode: lone surrogate at character {error.start}", param=param
        ) from None


def _end_of_text(inner: tokenizers.Tokenizer) -> int:
    # Config files of re-uploaded checkpoints name a wrong id; the token itself cannot be wrong.
    id = inner.token_to_id(END_OF_TEXT)
    if id is None:
        raise CheckpointError(f"the tokenizer has no {END_OF_TEXT} token")
    return int(id)


def _bytes_by_id(inner: tokenizers.Tokenizer) -> list[bytes]:
    decoder = json.loads(inner.to_str()).get("decoder") or {}
    if decoder.get("type") != "ByteLevel":
        raise CheckpointError(f"the tokenizer's decoder is {decoder.get('type')}, not ByteLevel")
    tokens = {id: token for token, id in inner.get_vocab(with_added_tokens=True).items()}
    if sorted(tokens) != list(range(len(tokens))):
        raise CheckpointError("the tokenizer's ids have gaps")
    alphabet = _byte_alphabet()
    return [_token_bytes(tokens[id], alphabet) for id in range(len(tokens))]


def _token_bytes(token: str, alphabet: dict[str, int]) -> bytes:
    # Added tokens (runs of spaces) are stored as plain text, outside the byte alphabet.
    try:
        return bytes(alphabet[char] for char in token)
    except KeyError:
        return token.encode("utf-8")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's byte-level alphabet: printable bytes are themselves, the others follow U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet
