"""``tokenizer.json``: the suite's kind, a byte-level BPE, or refused by the field that differs.

The engine counts on it that each token stands for fixed bytes, and that a text is what its tokens
spell one after another. Other kinds would load and give other ids or other text.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tokenizers
from pydantic import Field, StringConstraints

from pythia_bento.checkpoints.strict import No, Strict, Yes, check, parse_json, read_bytes
from pythia_bento.errors import CheckpointError, printable, shown
from pythia_bento.model.config import ModelConfig

END_OF_TEXT = "<|endoftext|>"
_MAX_PASSED = 256
_passed: set[tuple[bytes, int]] = set()  # sha256 of files, and the rows that they fitted
_Id = Annotated[int, Field(ge=0, lt=1_000_000)]
_Token = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class _AddedToken(Strict):
    """A token that is found in the text before anything else happens to it."""

    id: _Id
    content: _Token
    single_word: No = False
    lstrip: No = False
    rstrip: No = False
    normalized: bool
    special: bool


class _ByteLevel(Strict):
    type: Literal["ByteLevel"]
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: Yes = True


class _Splitting(_ByteLevel):
    add_prefix_space: No


class _Nfc(Strict):
    type: Literal["NFC"]


class _Bpe(Strict):
    type: Literal["BPE"] = "BPE"
    dropout: None = None
    unk_token: None = None
    continuing_subword_prefix: Literal[None, ""] = None
    end_of_word_suffix: Literal[None, ""] = None
    fuse_unk: No = False
    byte_fallback: No = False
    ignore_merges: No = False
    vocab: dict[_Token, _Id]
    merges: list[_Token | Annotated[list[_Token], Field(min_length=2, max_length=2)]]


class TokenizerFile(Strict):
    """As ``tokenizers`` writes it. What the file says of cutting and padding is not used."""

    version: Literal["1.0"] = "1.0"
    truncation: dict[str, Any] | None = None
    padding: dict[str, Any] | None = None
    added_tokens: list[_AddedToken]
    normalizer: _Nfc | None = None
    pre_tokenizer: _Splitting
    post_processor: _ByteLevel | None = None  # it only moves offsets, which nobody asks for
    decoder: _ByteLevel
    model: _Bpe


def check_tokenizer(path: Path, config: ModelConfig) -> None:
    """Raise CheckpointError unless the file is of this kind and fits a model of this shape."""
    check_tokenizer_bytes(read_bytes(path), path, config)


def check_tokenizer_bytes(data: bytes, path: Path, config: ModelConfig) -> None:
    """The same of what was read from ``path``; of equal bytes that passed before it costs nothing.

    Training steps have one tokenizer: to look at it with each that is loaded would take the
    interpreter for tenths of a second, in which no other request gets a token.
    """
    key = hashlib.sha256(data).digest(), config.vocab_size
    if key not in _passed:
        _check(data, path, config)
        if len(_passed) >= _MAX_PASSED:
            _passed.clear()
        _passed.add(key)


def _check(data: bytes, path: Path, config: ModelConfig) -> None:
    found = check(TokenizerFile, parse_json(data, str(path)), str(path))
    ids = dict(found.model.vocab)
    for token in found.added_tokens:
        # The library takes no notice of an id that is not the next one, or of the vocabulary.
        if ids.setdefault(token.content, len(ids)) != token.id:
            raise CheckpointError(f"{path} gives a token the id {token.id}, which is not its own")
    if END_OF_TEXT not in ids:
        raise CheckpointError(f"{path} has no {END_OF_TEXT} token")
    if set(ids.values()) != set(range(len(ids))):
        raise CheckpointError(f"{path} gives its tokens ids that are not 0 to {len(ids) - 1}")
    _check_merges(found.model, path)
    if len(ids) > config.vocab_size:
        raise CheckpointError(
            f"{path} has {len(ids)} tokens, but the model has rows for {config.vocab_size}"
        )


def tokenizer_meaning(data: bytes, path: Path) -> str:
    """A digest of what a file of this kind does: equal for files that encode and decode alike.

    How it is written down has no part in it, nor what nobody uses: version, truncation, padding,
    post-processor. Raises CheckpointError for another kind.
    """
    found = check(TokenizerFile, parse_json(data, str(path)), str(path))
    added = sorted(found.added_tokens, key=lambda token: token.id)
    parts = [
        found.normalizer and found.normalizer.model_dump(),
        found.pre_tokenizer.model_dump(),
        found.decoder.model_dump(),
        [token.model_dump() for token in added],
        found.model.vocab,
        [_pair(merge) for merge in found.model.merges],  # the earlier one goes first
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _check_merges(model: _Bpe, path: Path) -> None:
    """Two tokens merge into a third: for other merges the library has an error, or panics."""
    for merge in model.merges:
        pair = _pair(merge)
        if len(pair) != 2 or not model.vocab.keys() >= {*pair, "".join(pair)}:
            raise CheckpointError(f"{path} merges {shown(merge)}, which is not two of its tokens")


def try_tokenizer(path: Path) -> None:
    """Let the library have the last word.

    Whoever serves the file does so again; before it is stored it has to be known.
    """
    try:
        tokenizers.Tokenizer.from_buffer(read_bytes(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it raises plain Exception, and where it panics not even that
        told = printable(" ".join(str(error).split()), most=200)
        raise CheckpointError(f"{path} cannot be read as a tokenizer: {told}") from None
