"""Bodies with a file beside their JSON: ``multipart/form-data`` of two parts at most.

Such a body has been read within its limit before it comes here. Nothing of it is copied, which is
what this is for: a file may be 64 MiB, and libraries for forms copy it, or write it to the disk.
RFC 7578, and RFC 2046, 5.1 for what is between parts.
"""

from __future__ import annotations

import re

from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.runtime.turns import Turns

KIND = "multipart/form-data"
MAX_HEAD_BYTES = 4096  # of a part
LOOK = 2**20  # bytes that are looked at at once: less than a millisecond
_BOUNDARY = re.compile(
    r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))\s*(?:;|$)', re.IGNORECASE
)
_NAME = re.compile(
    rb'^content-disposition:\s*form-data\s*;(?:[^\r\n]*;)?\s*name="([^"\r\n]*)"',
    re.IGNORECASE | re.MULTILINE,
)
_Parts = dict[str, memoryview]


def is_multipart(kind: str) -> bool:
    """Whether a body of this Content-Type has parts."""
    return kind.partition(";")[0].strip().lower() == KIND


async def parts(body: bytes, kind: str, names: tuple[str, ...]) -> _Parts:
    """Each part by its name, of which it may have any of ``names`` once; raises InvalidRequest."""
    found = _BOUNDARY.search(kind)
    if found is None:
        raise _wrong("its Content-Type names no boundary of 1 to 70 characters")
    between = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    if not body.startswith(between[2:]):
        raise _wrong("it does not begin with its boundary")
    place, known = len(between) - 2, _Parts()
    while not body.startswith(b"--", place):
        name, start = _head(body, place, names)
        if name in known:
            raise _wrong(f"it has the part {name} twice")
        end = await _find(body, between, start)
        known[name] = memoryview(body)[start:end]
        place = end + len(between)
    return known


def _head(body: bytes, place: int, names: tuple[str, ...]) -> tuple[str, int]:
    """The name of a part, and where its data begin."""
    end = body.find(b"\r\n\r\n", place, place + MAX_HEAD_BYTES)
    if not body.startswith(b"\r\n", place) or end < 0:
        raise _wrong(f"a part of it has no head of at most {MAX_HEAD_BYTES} bytes")
    found = _NAME.search(body[place + 2 : end])
    name = found[1].decode("latin-1") if found else ""
    if name not in names:
        raise _wrong(f"it has a part named {shown(name)}, but may have {' and '.join(names)}")
    return name, end + 4


async def _find(body: bytes, wanted: bytes, start: int) -> int:
    turns = Turns()
    for place in range(start, len(body), LOOK):
        if (found := body.find(wanted, place, place + LOOK + len(wanted))) >= 0:
            return found
        await turns.take()
    raise _wrong("its last part has no end")


def _wrong(words: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not {KIND}: {words}")
