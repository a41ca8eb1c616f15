"""Bodies of two parts, of which nothing is copied."""

from __future__ import annotations

import random

import httpx
import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.server.http.multipart import LOOK, is_multipart, parts

NAMES = ("request", "tensors")
KIND = "multipart/form-data; boundary=b"


def part(name: str, data: bytes = b"{}", more: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{more}\r\n'
    return f"--b\r\n{head}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("multipart/form-data; boundary=x", True),
        ("Multipart/Form-Data ;boundary=x", True),
        ("multipart/form-data", True),
        ("multipart/mixed; boundary=x", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_kinds(kind: str, expected: bool) -> None:
    assert is_multipart(kind) is expected


async def test_what_a_client_writes_is_read() -> None:
    data = random.Random(0).randbytes(3 * LOOK) + b"\r\n--"
    files = {"request": (None, b'{"a": 1}', "application/json"), "tensors": ("t", data)}
    request = httpx.Request("POST", "http://here", files=files)
    found = await parts(request.read(), request.headers["content-type"], NAMES)
    assert {name: bytes(value) for name, value in found.items()} == {
        "request": b'{"a": 1}',
        "tensors": data,
    }


@pytest.mark.parametrize("place", range(LOOK - 40, LOOK + 2))
async def test_a_boundary_is_found_wherever_it_lies(place: int) -> None:
    before = part("request", b"x" * (place - 55))
    found = await parts(before + b"--b--\r\n", KIND, NAMES)
    assert found["request"].nbytes == place - 55


async def test_nothing_is_copied() -> None:
    body = part("tensors", b"x" * 100, '; filename="a b; c.safetensors"') + b"--b--"
    found = await parts(body, 'multipart/form-data; charset=utf-8; boundary="b"', NAMES)
    assert found["tensors"].obj is body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "it does not begin with its boundary"),
        (b"--c\r\n", "it does not begin with its boundary"),
        (b"--b", "a part of it has no head of at most 4096 bytes"),
        (b"--b\r\n\r\n", "it has a part named '', but may have request and tensors"),
        (b"--b\r\n" + b"x" * 9000 + b"\r\n\r\n", "a part of it has no head of at most 4096 bytes"),
        (b"--bx\r\n\r\n\r\n", "a part of it has no head of at most 4096 bytes"),
        (b"--b\r\nx: y\r\n\r\n{}\r\n--b--", "it has a part named '', but may have request and ten"),
        (part("file") + b"--b--", "it has a part named 'file', but may have request and tensors"),
        (part("request"), "its last part has no end"),
        (part("request") + part("request") + b"--b--", "it has the part request twice"),
        (part("request") + b"--b", "a part of it has no head of at most 4096 bytes"),
    ],
)
async def test_what_is_no_form_says_why(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await parts(body, KIND, NAMES)
    assert caught.value.message.startswith(f"the body is not multipart/form-data: {words}")


@pytest.mark.parametrize("boundary", ["", "boundary=", f"boundary={'b' * 71}", 'boundary=""'])
async def test_a_boundary_has_to_be_named(boundary: str) -> None:
    kind = f"multipart/form-data; {boundary}"
    with pytest.raises(InvalidRequest, match="names no boundary of 1 to 70 characters"):
        await parts(b"", kind, NAMES)
