"""Safetensors by our own reader, beside huggingface's."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from pythia_bento.protocol.tensors import (
    ANSWER,
    INPUT,
    Entry,
    NotSafetensors,
    header,
    read,
    write,
)
from tests.amounts import amounts
from tests.fuzz.structures import as_json, mutated

A = np.arange(6, dtype=np.float32).reshape(2, 3)
ARRAYS = {"a": A, "b": A[:0], "c": np.float16([1.5, -2]), "d": np.float32(7)}


def file_of(fields: Any, data: bytes = b"") -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + data


def of(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: Any) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def test_what_is_written_is_read_here_and_by_the_library() -> None:
    data = b"".join(write(ARRAYS, {"model": "ä"}))
    found, metadata = read(data)
    assert metadata == {"model": "ä"}
    theirs = safetensors.numpy.load(data)
    assert found.keys() == theirs.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].raw().dtype == theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].raw(), array)
        np.testing.assert_array_equal(theirs[name], array)
        np.testing.assert_array_equal(found[name].widened(), array)


def test_bf16_is_widened_to_the_bit() -> None:
    values = np.float32([1.0, -2.5, 3e38, 1e-40])
    bits = (values.view("<u4") >> 16).astype("<u2")
    text = header([Entry("v", "BF16", (4,))])
    stored = read(text + bits.tobytes())[0]["v"]
    np.testing.assert_array_equal(stored.raw(), bits)
    assert stored.widened().view("<u4").tolist() == (bits.astype("<u4") << 16).tolist()


def test_reading_copies_nothing() -> None:
    data = bytearray(b"".join(write({"a": A})))
    stored = read(data)[0]["a"]
    data[-4:] = np.float32(9).tobytes()
    assert stored.raw()[1, 2] == stored.widened()[1, 2] == 9


def test_a_header_is_known_before_its_data() -> None:
    entries = [Entry("x", "F32", (2, 3)), Entry("y", "BF16", (5,)), Entry("z", "I32", ())]
    text = header(entries, {"k": "v"})
    assert len(text) % 8 == 0
    data = text + bytes(sum(entry.nbytes for entry in entries))
    found, _ = read(data, ANSWER)
    assert [(name, one.dtype, one.shape) for name, one in found.items()] == [
        (entry.name, entry.dtype, entry.shape) for entry in entries
    ]
    assert {name for name, _ in safetensors.deserialize(data)} == {"x", "y", "z"}
    with pytest.raises(NotSafetensors, match="'z' has dtype 'I32', which is none of BF16, F16"):
        read(data, INPUT)


WRONG: list[tuple[bytes, str]] = [
    (b"", "has 0 bytes and ends before its header does"),
    (b"\1\0\0\0\0\0\0\0", "ends before its header does"),
    (b"\xff" * 8, "ends before its header does"),
    ((2**20 + 1).to_bytes(8, "little") + b"{" * 2**21, "its header has 1048577 bytes, above"),
    (file_of(b"[]"), "its header does not begin with {"),
    (file_of(b' {"a":1}'), "its header does not begin with {"),
    (file_of(b"{"), "its header is not JSON"),
    (file_of(b'{"a":NaN}'), "its header is not JSON"),
    (file_of(b'{"a":\xff}'), "its header is not JSON"),
    (file_of(b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}"), "its header is not JSON"),
    (file_of(b'{"a":' + b"9" * 5000 + b"}"), "its header is not JSON"),
    (file_of(b'{"a":[' + b"1," * 2**17 + b"1]}"), "more than 65536 quotes, commas and brackets"),
    (file_of(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "its header has 'dtype' twice"),
    (file_of(b'{"__metadata__":{},"__metadata__":{}}'), "its header has '__metadata__' twice"),
    (file_of({"__metadata__": {"a": 1}}), "its __metadata__ is not an object of strings"),
    (file_of({"__metadata__": []}), "its __metadata__ is not an object of strings"),
    (file_of({"a": 1}), "'a' must have dtype, shape and data_offsets, and nothing else"),
    (file_of({"a": of(x=1)}, bytes(4)), "'a' must have dtype, shape and data_offsets"),
    (file_of({"a": of("F64", (1,), (0, 8))}, bytes(8)), "'a' has dtype 'F64', which is none of"),
    (file_of({"a": of(["F32"])}, bytes(4)), "'a' has dtype ['F32'], which is none of"),
    (file_of({"a": of(shape=[-1])}, bytes(4)), "'a' has shape [-1], which is none"),
    (file_of({"a": of(shape=[True])}, bytes(4)), "'a' has shape [True], which is none"),
    (file_of({"a": of(shape=[1] * 9)}, bytes(4)), "'a' has shape [1, 1, 1"),
    (file_of({"a": of(shape=[2**62, 4])}, bytes(4)), "'a' has shape [4611686018427387904, 4] and"),
    (file_of({"a": of(offsets=(0, 4, 4))}, bytes(4)), "'a' has data_offsets [0, 4, 4], which are"),
    (file_of({"a": of(offsets=(4, 0))}, bytes(4)), "'a' has shape [1] and -4 bytes"),
    (file_of({"a": of(offsets=(0, 8))}, bytes(8)), "'a' has shape [1] and 8 bytes"),
    (file_of({"a": of()}, bytes(3)), "'a' ends behind the file"),
    (file_of({"a": of()}, bytes(5)), "1 bytes at its end belong to no tensor"),
    (file_of({"a": of(offsets=(4, 8))}, bytes(8)), "'a' begins at byte 4, not at 0"),
    (file_of({"a": of(), "b": of()}, bytes(4)), "'b' begins at byte 0, not at 4"),
    (file_of({"a": of(), "b": of(offsets=(8, 12))}, bytes(12)), "'b' begins at byte 8, not at 4"),
]


@pytest.mark.parametrize(("data", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_no_file_says_why(data: bytes, words: str) -> None:
    with pytest.raises(NotSafetensors) as caught:
        read(data)
    message = str(caught.value)
    assert words in message and "\n" not in message and len(message) < 200


@amounts(300, 10_000)
def test_random_files_are_read_as_the_library_reads_them_or_refused(amount: int) -> None:
    read_by_both = 0
    for seed in range(amount):
        data = drawn(random.Random(seed))
        try:
            ours, _ = read(data)
        except NotSafetensors:
            continue
        except Exception as error:
            pytest.fail(f"seed {seed}: {error!r}")
        assert sum(one.data.nbytes for one in ours.values()) <= len(data), seed
        try:
            theirs = dict(safetensors.deserialize(data))
        except safetensors.SafetensorError:
            continue
        read_by_both += 1
        assert ours.keys() == theirs.keys(), seed
        for name, one in ours.items():
            facts = theirs[name]
            assert (one.dtype, list(one.shape)) == (facts["dtype"], facts["shape"]), seed
            assert bytes(one.data) == bytes(facts["data"]), seed
    assert read_by_both > amount / 10


def drawn(draw: random.Random) -> bytes:
    """A file, right or wrong."""
    fields: dict[str, Any] = {"__metadata__": {"format": "np"}} if draw.random() < 0.5 else {}
    place = 0
    for number in range(draw.randrange(5)):
        dtype = draw.choice(["F32", "F16", "BF16"])
        shape = [draw.randrange(4) for _ in range(draw.randrange(4))]
        entry = Entry("", dtype, tuple(shape))
        fields[f"t{number}"] = of(dtype, shape, [place, place + entry.nbytes])
        place += entry.nbytes
    if draw.random() < 0.5:
        fields = mutated(draw, fields, draw.randint(1, 3))
        text = as_json(draw, fields)
    else:
        text = json.dumps(fields).encode()
    length = len(text) if draw.random() < 0.9 else draw.choice([0, len(text) + 1, 2**63])
    data = length.to_bytes(8, "little") + text + draw.randbytes(place)
    return data if draw.random() < 0.9 else data[: draw.randrange(len(data))] + b"\0"
