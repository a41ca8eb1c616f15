"""API keys as an operator writes them down, and their hashes, which are all that is kept.

An entry is ``[name] key [suspended]``, where the key is itself or, better, ``sha256:<hex>``. A
plain SHA-256 is enough because keys are long and random: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from pythia_bento.errors import InvalidRequest
from pythia_bento.settings import Settings, SettingsError

MIN_LENGTH = 16  # of a key in plain: a shorter one could be found by trying
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_KEY = re.compile(rf"[!-~]{{{MIN_LENGTH},}}")
_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)
_COMMENT = re.compile(r"(^|\s)#.*")  # a key may have a # in it
_SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key; its name stands in logs and messages instead of it."""

    name: str
    digest: bytes  # SHA-256
    suspended: bool = False

    @classmethod
    def named(cls, name: str | None, digest: bytes, suspended: bool = False) -> ApiKey:
        """With a name made of the hash where there is none; raises InvalidRequest."""
        name = name or f"key-{digest.hex()[:8]}"
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                "the name of a key must be 1 to 64 letters, digits, dots, dashes, underscores or @",
                param="name",
            )
        return cls(name, digest, suspended)

    @property
    def entry(self) -> str:
        """As an operator writes it down."""
        words = [self.name, f"sha256:{self.digest.hex()}"]
        return " ".join([*words, _SUSPENDED] if self.suspended else words)


def new_key() -> str:
    """A random key of 256 bits."""
    return f"pb-{secrets.token_urlsafe(32)}"


def digest(key: str) -> bytes:
    """SHA-256; any string has one."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(settings: Settings) -> tuple[ApiKey, ...] | None:
    """The keys of ``PYTHIA_API_KEYS`` and ``PYTHIA_API_KEYS_FILE``; None where neither is set.

    Raises SettingsError, which names the place of a bad entry and never what stands there.
    """
    if not settings.has_keys:
        return None
    keys: list[ApiKey] = []
    if settings.api_keys is not None:
        entries = settings.api_keys.get_secret_value().replace("\n", ",").split(",")
        keys += _parse("PYTHIA_API_KEYS", "entry", entries)
    if settings.api_keys_file is not None:
        keys += _parse("PYTHIA_API_KEYS_FILE", "line", _lines(settings.api_keys_file))
    _check_unique(keys)
    return tuple(keys)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return [_COMMENT.sub("", line) for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"PYTHIA_API_KEYS_FILE {path!r} cannot be read: {reason}") from None


def _parse(source: str, what: str, entries: Iterable[str]) -> list[ApiKey]:
    keys = [
        _entry(f"{source}, {what} {number}", entry.split())
        for number, entry in enumerate(entries, 1)
        if entry.strip()
    ]
    if not keys:  # an empty variable must not open the server
        raise SettingsError(f"{source} is set but holds no key")
    return keys


def _entry(place: str, words: list[str]) -> ApiKey:
    suspended = words[1:] != [] and words[-1] == _SUSPENDED
    words = words[: len(words) - suspended]
    if len(words) > 2:
        raise SettingsError(f"{place} must be: [name] key [{_SUSPENDED}]")
    name = words[0] if len(words) == 2 else None
    try:
        return ApiKey.named(name, _digest(place, words[-1]), suspended)
    except InvalidRequest as error:
        raise SettingsError(f"{place}: {error.message}") from None


def _digest(place: str, word: str) -> bytes:
    if found := _HASH.fullmatch(word.lower()):
        return bytes.fromhex(found[1])
    if word.lower().startswith("sha256:"):
        raise SettingsError(f"{place} has a hash that is not sha256: and 64 hex digits")
    if not _KEY.fullmatch(word):
        raise SettingsError(f"{place} has a key that is not {MIN_LENGTH} or more ASCII characters")
    return digest(word)


def _check_unique(keys: list[ApiKey]) -> None:
    for values, what in (
        ([key.name for key in keys], "the same name"),
        ([key.digest for key in keys], "the same key"),
    ):
        if len(set(values)) < len(values):
            raise SettingsError(f"two entries of the API keys have {what}")
