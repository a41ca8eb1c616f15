"""Safetensors: named tensors in one file, read without a copy and without trust, and written.

The format (huggingface/safetensors, README, "Format"): 8 bytes, little-endian, the length of the
header; the header, JSON that begins with ``{`` and may end in spaces, an object of ``name:
{"dtype", "shape", "data_offsets": [begin, end]}`` and ``__metadata__``, an object of strings; then
the data, to which the offsets refer, row-major and little-endian, without gaps or overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pythia_bento.errors import shown

METADATA = "__metadata__"
ALIGNMENT = 8  # bytes, of the header's length
MAX_DIMENSIONS = 8
# BF16 is the upper half of fp32: numpy has no such type.
DTYPES: dict[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4"}
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a file may be."""

    dtypes: frozenset[str]
    header_bytes: int
    parts: int
    """Quotes, commas and brackets of the header: they bound how long it is parsed."""


INPUT = Rules(frozenset({"F32", "F16", "BF16"}), 2**20, 2**16)
"""Of strangers: a header is parsed in some milliseconds."""
ANSWER = Rules(frozenset(DTYPES), 100_000_000, 2**62)
"""Of a server that is trusted; the header is as large as huggingface/safetensors takes."""


class NotSafetensors(ValueError):
    """Says why, in words that may stand behind "is not a safetensors file: "."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as a file has it."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    def raw(self) -> np.ndarray:
        """Its values where they are; those of BF16 as their 16 bits."""
        return np.frombuffer(self.data, DTYPES[self.dtype]).reshape(self.shape)

    def widened(self) -> np.ndarray:
        """The same as fp32, which holds each value of F16 and BF16; a copy unless it is F32."""
        raw = self.raw()
        if self.dtype == "BF16":
            return (raw.astype("<u4") << 16).view("<f4")
        return raw if self.dtype == "F32" else raw.astype("<f4")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a header says of a tensor, but for where it is."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of its data."""
        return math.prod(self.shape) * item_bytes(self.dtype)


def item_bytes(dtype: str) -> int:
    """Of one value."""
    return int(DTYPES[dtype][-1])


def read(
    buffer: bytes | bytearray | memoryview, rules: Rules = INPUT
) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors of a file, views of ``buffer``, and its metadata; raises NotSafetensors."""
    file = memoryview(buffer).cast("B")
    length = int.from_bytes(file[:8], "little")
    if len(file) < 8 or length > len(file) - 8:
        raise NotSafetensors(f"it has {len(file)} bytes and ends before its header does")
    if length > rules.header_bytes:
        raise NotSafetensors(f"its header has {length} bytes, above {rules.header_bytes}")
    fields = _object(bytes(file[8 : 8 + length]), rules)
    metadata = fields.pop(METADATA, {})
    if not isinstance(metadata, dict) or not _are_strings(metadata.values()):
        raise NotSafetensors(f"its {METADATA} is not an object of strings")
    data = file[8 + length :]
    return dict(_tensors(fields, data, rules)), metadata


def _object(text: bytes, rules: Rules) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise NotSafetensors("its header does not begin with {")
    if sum(text.count(part) for part in (b'"', b",", b"[", b"{")) > rules.parts:
        raise NotSafetensors(f"its header has more than {rules.parts} quotes, commas and brackets")
    try:
        found = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except NotSafetensors:
        raise
    except (ValueError, RecursionError):
        raise NotSafetensors("its header is not JSON") from None
    assert isinstance(found, dict)  # as it begins with {
    return found


def _unique(pairs: list[tuple[str, _Value]]) -> dict[str, _Value]:
    found: dict[str, _Value] = {}
    for name, value in pairs:
        if name in found:
            raise NotSafetensors(f"its header has {shown(name)} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _are_strings(values: Any) -> bool:
    return set(map(type, values)) <= {str}


def _tensors(
    fields: dict[str, Any], data: memoryview, rules: Rules
) -> Iterator[tuple[str, Stored]]:
    """In the order of their data, which they cover."""
    known = [(*_described(name, field, rules), name) for name, field in fields.items()]
    place = 0
    for begin, end, dtype, shape, name in sorted(known, key=lambda one: one[:2]):
        if begin != place:
            raise NotSafetensors(f"{shown(name)} begins at byte {shown(begin)}, not at {place}")
        if end > len(data):
            raise NotSafetensors(f"{shown(name)} ends behind the file")
        yield name, Stored(dtype, shape, data[begin:end])
        place = end
    if place != len(data):
        raise NotSafetensors(f"{len(data) - place} bytes at its end belong to no tensor")


def _described(name: str, field: Any, rules: Rules) -> tuple[int, int, str, tuple[int, ...]]:
    """Begin and end of its data, dtype and shape; its size is that of its shape."""
    if not isinstance(field, dict) or field.keys() != {"dtype", "shape", "data_offsets"}:
        raise NotSafetensors(
            f"{shown(name)} must have dtype, shape and data_offsets, and nothing else"
        )
    dtype, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(dtype, str) or dtype not in rules.dtypes:
        kinds = ", ".join(sorted(rules.dtypes))
        raise NotSafetensors(f"{shown(name)} has dtype {shown(dtype)}, which is none of {kinds}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise NotSafetensors(f"{shown(name)} has shape {shown(shape)}, which is none")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise NotSafetensors(f"{shown(name)} has data_offsets {shown(offsets)}, which are none")
    if offsets[1] - offsets[0] != math.prod(shape) * item_bytes(dtype):
        raise NotSafetensors(
            f"{shown(name)} has shape {shown(shape)} and {shown(offsets[1] - offsets[0])} bytes"
        )
    return offsets[0], offsets[1], dtype, tuple(shape)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**63 for one in value)


def header(entries: Sequence[Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """What stands before the data of ``entries``, which follow in their order without gaps."""
    fields: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    place = 0
    for entry in entries:
        end = place + entry.nbytes
        described = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": (place, end)}
        fields[entry.name], place = described, end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """A file of float32, float16 and int32 arrays, in pieces: the header, and each one's data."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BF16"}
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    entries = [Entry(name, names[array.dtype], array.shape) for name, array in arrays.items()]
    data = [array.reshape(-1).view(np.uint8).data for array in arrays.values() if array.size]
    return [header(entries, metadata), *data]
