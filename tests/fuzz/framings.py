"""HTTP/1.1 connections that a seed makes up: sound requests, and some that are framed wrong.

Each request has its number as ``X-Request-Id``, which its answer repeats. Bodies, chunks, trailers,
extensions and header values hold whole requests of their own, by the name INNER, and nothing may
ever answer those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

INNER = "inner"
INSIDE = f"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: {INNER}\r\n\r\n".encode()
MAX_REQUESTS = 6  # of a connection

Headers = list[tuple[bytes, bytes]]


@dataclass
class Message:
    """One request in parts, which faults put together in another way."""

    method: str
    path: str
    number: int
    headers: Headers
    body: bytes = b""
    framing: bytes | None = None  # the body as it is sent, where that is not ``body``
    version: bytes = b"HTTP/1.1"
    end: bytes = b"\r\n"  # of lines of the head
    raw_head: bytes = b""  # lines put into the head as they are
    fault: str = ""

    def encoded(self) -> bytes:
        """What is sent."""
        line = b" ".join([self.method.encode(), self.path.encode("latin-1"), self.version])
        lines = [line, *(name + b": " + value for name, value in self.headers)]
        head = self.end.join(lines) + self.end + self.raw_head + self.end
        return head + (self.body if self.framing is None else self.framing)


@dataclass
class Framing:
    """One connection."""

    messages: list[Message]
    pieces: list[bytes] = field(default_factory=list)  # each a segment

    @property
    def num_sound(self) -> int:
        """Requests before the one that is framed wrong."""
        return next(
            (n for n, message in enumerate(self.messages) if message.fault), len(self.messages)
        )

    @property
    def is_sound(self) -> bool:
        return self.num_sound == len(self.messages)

    @property
    def fault(self) -> str:
        """What is wrong with one of the requests; empty where all are sound."""
        return "".join(message.fault for message in self.messages)

    def __str__(self) -> str:
        sent = b"".join(self.pieces)
        return f"{self.fault or 'all is sound'}, in {len(self.pieces)} pieces: {sent!r}"


def framing(seed: int, number: int) -> Framing:
    """The one of this number; the last request says that it is the last."""
    draw = Random(f"{seed} {number}")
    messages = [_message(draw, index) for index in range(draw.randint(1, MAX_REQUESTS))]
    if messages[-1].method != "POST":  # answered before its body is there, of which a reset follows
        _without(messages[-1], b"content-length", b"transfer-encoding")
        messages[-1].body, messages[-1].framing = b"", None
    messages[-1].headers.append((b"Connection", b"close"))
    if draw.random() < 0.6:
        message = draw.choice(messages)
        fault = draw.choice(sorted(FAULTS))
        FAULTS[fault](draw, message)
        message.fault = fault
    made = Framing(messages)
    made.pieces = list(_cut(draw, b"".join(message.encoded() for message in messages)))
    return made


# --- Sound requests


def _message(draw: Random, number: int) -> Message:
    method, path = draw.choice(
        [
            *(("GET", "/livez"), ("GET", "/nothing"), ("HEAD", "/livez"), ("OPTIONS", "/tokenize")),
            *(("DELETE", "/v1/models"), ("GET", "/livez?a=%0d%0aX-Request-Id:%20inner%0d%0a")),
            *([("POST", "/tokenize")] * 3 + [("POST", "/detokenize"), ("POST", "/v1/completions")]),
        ]
    )
    headers = [(_case(draw, b"Host"), b"localhost"), (b"X-Request-Id", b"%d" % number)]
    for _ in range(draw.choice([0, 0, 1, 5, 40])):
        headers.append((b"X-" + draw.choice([b"a", b"B-c", b"_"]), draw.choice(VALUES)))
    draw.shuffle(headers)
    message = Message(method, path, number, headers)
    if method == "POST" or draw.random() < 0.1:
        _add_body(draw, message)
    return message


VALUES = (b"", b"a", b" \t spaces \t", b"\xff\x80", b'"quoted, list"', b"GET /livez", b"a" * 3000)


def _add_body(draw: Random, message: Message) -> None:
    text = INSIDE.decode() * draw.choice([1, 1, 20])
    wrong = {"tokens": "none"} if message.path == "/detokenize" else {"promp": text}
    right = {"tokens": [1, 2]} if message.path == "/detokenize" else {"prompt": text}
    body = json.dumps(draw.choice([wrong, right])).encode()
    if message.path == "/v1/completions" or draw.random() < 0.3:
        body = INSIDE  # no JSON: refused, and nothing more
    message.body = body
    if draw.random() < 0.5:
        message.headers.append((_case(draw, b"Content-Length"), b"%d" % len(body)))
        return
    message.headers.append(
        (_case(draw, b"Transfer-Encoding"), draw.choice([b"chunked", b"Chunked"]))
    )
    message.framing = _chunks(draw, body)


def _chunks(draw: Random, body: bytes) -> bytes:
    made, place = b"", 0
    while place < len(body):
        size = draw.choice([1, 2, 7, 100, 5000])
        piece = body[place : place + size]
        made += _size(draw, len(piece)) + _extension(draw) + b"\r\n" + piece + b"\r\n"
        place += size
    trailers = [b"X-Request-Id: inner\r\n", b"X: GET /livez HTTP/1.1\r\n", b"Host: y\r\n"]
    some = draw.sample(trailers, draw.choice([0, 0, 1, 3]))
    return made + _size(draw, 0) + _extension(draw) + b"\r\n" + b"".join(some) + b"\r\n"


def _size(draw: Random, size: int) -> bytes:
    return b"0" * draw.choice([0, 0, 1, 8]) + draw.choice([b"%x", b"%X"]) % size


def _extension(draw: Random) -> bytes:
    return draw.choice([b"", b"", b"", b";a=1", b";a", b';a="GET /livez"', b";" + b"e" * 500])


def _case(draw: Random, name: bytes) -> bytes:
    return draw.choice([name, name.lower(), name.upper()])


# --- Faults

Fault = Callable[[Random, Message], None]
FAULTS: dict[str, Fault] = {}
# Those that readers agree about: a server may answer such a request.
TOLERATED = frozenset(
    {
        *("body that is cut off", "bytes between requests", "close before the end"),
        *("expectation", "request line of nonsense", "upgrade"),
    }
)


def _fault(function: Fault) -> Fault:
    FAULTS[function.__name__.lstrip("_").replace("_", " ")] = function
    return function


def _without(message: Message, *names: bytes) -> None:
    message.headers = [(n, v) for n, v in message.headers if n.lower() not in names]


def _of_body(message: Message, framing: bytes, *headers: tuple[bytes, bytes]) -> None:
    """With another framing of a body than it had, if it had one."""
    message.method, message.path = "POST", "/tokenize"
    _without(message, b"content-length", b"transfer-encoding")
    message.headers += headers
    message.framing = framing


CHUNKED = (b"Transfer-Encoding", b"chunked")


@_fault
def _length_and_chunks(draw: Random, message: Message) -> None:
    framing = b"0\r\n\r\n" + INSIDE
    length = (b"Content-Length", draw.choice([b"%d" % len(framing), b"5", b"0", b"6"]))
    _of_body(message, framing, *draw.sample([length, CHUNKED], 2))


@_fault
def _lengths_that_differ(draw: Random, message: Message) -> None:
    both = [(b"Content-Length", value) for value in (b"0", b"%d" % len(INSIDE))]
    _of_body(message, INSIDE, *draw.sample(both, 2))


@_fault
def _length_that_is_none(draw: Random, message: Message) -> None:
    wrong = (b"-1", b"+5", b"0x10", b"1e3", b"5, 5", b"5 5", b"", b"99999999999999999999", b"1_0")
    _of_body(message, INSIDE, (b"Content-Length", draw.choice(wrong)))


@_fault
def _encoding_that_is_not_chunked_at_last(draw: Random, message: Message) -> None:
    wrong = (
        b"chunked, identity",
        b"identity",
        b"xchunked",
        b"chunked;q=1",
        b"\x0bchunked",
        b"gzip",
    )
    framing = b"%x\r\n%b\r\n0\r\n\r\n" % (len(INSIDE), INSIDE)
    _of_body(message, framing, (b"Transfer-Encoding", draw.choice(wrong)))


@_fault
def _chunk_size_that_is_none(draw: Random, message: Message) -> None:
    wrong = (b"0x5", b"+5", b"-1", b"5_0", b"G", b"", b" 5", b"fffffffffffffffff", b"1 5", b"5\x00")
    _of_body(message, draw.choice(wrong) + b"\r\nabcde\r\n0\r\n\r\n" + INSIDE, CHUNKED)


@_fault
def _chunk_longer_than_its_size(draw: Random, message: Message) -> None:
    _of_body(message, b"%x\r\nabcde" % draw.randint(1, 4) + INSIDE + b"\r\n0\r\n\r\n", CHUNKED)


@_fault
def _chunk_without_its_end(draw: Random, message: Message) -> None:
    end = draw.choice([b"", b"\n", b"\r", b"\r\r", b"XX"])
    _of_body(message, b"5\r\nabcde" + end + b"0\r\n\r\n", CHUNKED)


@_fault
def _chunk_line_with_a_bare_end(draw: Random, message: Message) -> None:
    """Who differs in where the line ends differs in what is a chunk and what a request."""
    bare, size = draw.choice([b"\n", b"\r"]), len(INSIDE) + 5
    _of_body(message, b"5;a" + bare + b"%x\r\nabcde\r\n0\r\n\r\n" % size + INSIDE, CHUNKED)


@_fault
def _trailer_of_nonsense(draw: Random, message: Message) -> None:
    wrong = (
        *(b"no colon", b": no name", b"a\x00b: c", b" folded: x", b"X: " + b"a" * 9000),
        *(b"Content-Length: 5", b"Transfer-Encoding: chunked"),  # what no trailer may be
    )
    _of_body(message, b"3\r\nabc\r\n0\r\n" + draw.choice(wrong) + b"\r\n\r\n", CHUNKED)


@_fault
def _header_line_of_nonsense(draw: Random, message: Message) -> None:
    wrong = (
        *(b"Content-Length : 5", b"Transfer-Encoding : chunked", b" X: folded", b"\tX: folded"),
        *(
            b"no colon",
            b": no name",
            b"a b: c",
            b"X: a\x00b",
            b"X\x00: a",
            b"X: a\rY: b",
            b"\x80: x",
        ),
        *(b"Host: another", b"Host: ", b"(x): y", b"X: \x01"),
    )
    message.raw_head = draw.choice(wrong) + b"\r\n"


@_fault
def _lines_that_end_otherwise(draw: Random, message: Message) -> None:
    message.end = draw.choice([b"\n", b"\r", b"\r\r\n", b"\n\r"])


@_fault
def _request_line_of_nonsense(draw: Random, message: Message) -> None:
    which = draw.randrange(5)
    if which == 0:
        message.method = draw.choice(["get", "FROB", "", "G T", "GET\t", "\x00", "PRI"])
    elif which == 1:
        wrong = (
            "",
            "livez",
            "/a b",
            "/\xff",
            "http://",
            "*",
            "/" + "a" * 70_000,
            "//[",
            "?",
            "/\x00",
        )
        message.path = draw.choice(wrong)
    elif which == 2:
        message.version = draw.choice(
            [b"HTTP/2.0", b"HTTP/9", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 x"]
        )
    elif which == 3:
        message.version = b"HTTP/1.0"
    else:
        message.method, message.path = "CONNECT", "localhost:80"


@_fault
def _host_missing(draw: Random, message: Message) -> None:
    _without(message, b"host")


@_fault
def _upgrade(draw: Random, message: Message) -> None:
    kind = draw.choice([b"websocket", b"h2c", b"TLS/1.0", b"x"])
    message.headers += [(b"Upgrade", kind), (b"Connection", b"Upgrade")]


@_fault
def _close_before_the_end(draw: Random, message: Message) -> None:
    message.headers.append((b"Connection", b"close"))


@_fault
def _expectation(draw: Random, message: Message) -> None:
    message.headers.append((b"Expect", draw.choice([b"100-continue", b"a-pony"])))


@_fault
def _body_that_is_cut_off(draw: Random, message: Message) -> None:
    _of_body(message, b"{", (b"Content-Length", b"%d" % draw.choice([2, 10**5, 10**18])))


@_fault
def _bytes_between_requests(draw: Random, message: Message) -> None:
    some = bytes(draw.randrange(256) for _ in range(draw.randint(1, 50)))
    message.framing = (message.framing or message.body) + draw.choice(
        [some, b"\r\n", b"\x16\x03\x01"]
    )


# --- Segments


def _cut(draw: Random, data: bytes) -> Iterable[bytes]:
    """In one piece, in a few, in many small ones, or after each end of a line."""
    how = draw.randrange(4)
    if how == 0 or len(data) > 20_000:
        return [data]
    if how == 1:
        borders = sorted(draw.randrange(len(data)) for _ in range(draw.randint(1, 5)))
    elif how == 2:
        borders = list(range(0, min(len(data), 600), draw.randint(1, 9)))
    else:
        borders = [place for place, byte in enumerate(data) if byte in b"\r\n"][:200]
    ends = [*borders, len(data)]
    starts = [0, *borders]
    return [data[start:end] for start, end in zip(starts, ends, strict=True) if end > start]
