"""One question to the hub at a time, bounded in bytes and in time whoever answers.

Session, headers, proxies, token and errors are huggingface_hub's. Its own calls read whatever
comes to its end and then unpack it; here a body is counted as it arrives.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from pythia_bento import __version__
from pythia_bento.errors import CheckpointError

# Every megabyte has a minute, the first one from the question on: a line of 0.14 Mbit/s is enough,
# on which the 24 GB of a 12b take weeks, and nobody can hold a pull with less. So a file of N MB
# arrives within N + 1 minutes or not at all, and an hour of waits that the hub asks for between
# tries; a hub without ranges that is cut gets some more whole rounds.
PORTION = 1 << 20  # bytes
PORTION_SECONDS = 60.0
WAIT_SECONDS = 3600.0
MAX_ANSWER = 8 << 20  # bytes of metadata; 154 branches are 20 kB
_MAX_REDIRECTS = 10
_PIECES_AHEAD = 8  # of at most 64 KiB


class Pace:
    """The time that is left to the portion on its way; one for all tries of a file."""

    def __init__(self, what: str) -> None:
        self._what, self._waits = what, WAIT_SECONDS
        self._begin()

    def _begin(self) -> None:
        self._left, self._brought = PORTION_SECONDS, 0

    def wait(self, pieces: queue.Queue[Any]) -> Any:
        """The next of ``pieces``; raises CheckpointError when its portion takes too long."""
        started = time.monotonic()
        try:
            piece = pieces.get(timeout=max(self._left, 0))
        except queue.Empty:
            raise CheckpointError(
                f"the hub sends {self._what} slower than {PORTION >> 20} MiB in "
                f"{PORTION_SECONDS:g} s; pull again to resume"
            ) from None
        self._left -= time.monotonic() - started
        if isinstance(piece, bytes):
            self._brought += len(piece)
        if self._brought >= PORTION:
            self._begin()
        return piece

    def sleep(self, seconds: float) -> None:
        """Wait before another try; raises CheckpointError when waits become too many."""
        self._waits -= seconds
        if self._waits < 0:
            raise CheckpointError(
                f"the hub asks for more than {WAIT_SECONDS:g} s of waits for {self._what}; "
                "pull again to resume"
            )
        time.sleep(seconds)


class Answer:
    """Status and headers of an answer, and its body as it comes."""

    def __init__(self, response: httpx2.Response, pieces: queue.Queue[Any], pace: Pace) -> None:
        self.status, self.headers = response.status_code, response.headers
        self._pieces, self._pace = pieces, pace

    def body(self) -> Iterator[bytes]:
        """In pieces; raises what ended it before its end."""
        while (piece := self._pace.wait(self._pieces)) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


def read(url: str, what: str) -> bytes:
    """A whole answer of at most MAX_ANSWER bytes.

    Raises the library's errors for the hub's, and CheckpointError for what is too much or too slow.
    """
    data = bytearray()
    with ask(url, {}, what, Pace(what)) as answer:
        for piece in answer.body():
            data += piece
            if len(data) > MAX_ANSWER:
                raise CheckpointError(f"the hub's answer about {what} passes {MAX_ANSWER} bytes")
    return bytes(data)


@contextmanager
def ask(url: str, headers: dict[str, str], what: str, pace: Pace) -> Iterator[Answer]:
    """A successful answer, not compressed; raises as ``read`` does."""
    # In a thread of its own: there is no other way to have an end for a name that is looked up, a
    # handshake, or headers that come byte by byte.
    pieces: queue.Queue[Any] = queue.Queue(_PIECES_AHEAD)
    left = threading.Event()
    sent = {
        **build_hf_headers(library_name="pythia-bento", library_version=__version__),
        "accept-encoding": "identity",  # ranges and limits count bytes of the file
        **headers,
    }
    threading.Thread(
        target=_fetch, args=(url, sent, pieces, left), name="hub answer", daemon=True
    ).start()
    try:
        first = pace.wait(pieces)
        if isinstance(first, BaseException):
            raise first
        _require_plain(first, what)
        yield Answer(first, pieces, pace)
    finally:
        left.set()
        with suppress(queue.Empty):
            while True:  # so that it finds room, and then that nobody waits any more
                pieces.get_nowait()


def _fetch(
    url: str, headers: dict[str, str], pieces: queue.Queue[Any], left: threading.Event
) -> None:
    """Put the response, the pieces of its body and None into ``pieces``, or what went wrong."""
    try:
        with _open(url, headers) as response:
            pieces.put(response)
            for piece in response.iter_raw():
                if left.is_set():
                    return
                pieces.put(piece)
        pieces.put(None)
    except BaseException as error:
        pieces.put(error)


@contextmanager
def _open(url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    """The response at the end of redirects, whose bodies are not read.

    The client leaves the token out where a redirect leads to another host.
    """
    session = get_session()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    request = session.build_request("GET", url, headers=headers, timeout=timeout)
    for _ in range(_MAX_REDIRECTS):
        response = session.send(request, stream=True, follow_redirects=False)
        try:
            if response.next_request is None:
                yield response
                return
        finally:
            response.close()
        request = response.next_request
    raise httpx2.TooManyRedirects(f"more than {_MAX_REDIRECTS} redirects", request=request)


def _require_plain(response: httpx2.Response, what: str) -> None:
    """Raise unless there is a body that counts as it is."""
    headers = httpx2.Headers(response.headers)
    encoding = headers.pop("content-encoding", "identity")
    # The library reads all of what comes with an error to quote it: this copy has nothing.
    hf_raise_for_status(
        httpx2.Response(response.status_code, headers=headers, request=response.request)
    )
    if response.status_code not in (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
        raise CheckpointError(f"the hub answered {response.status_code} for {what}")
    if encoding != "identity":
        raise CheckpointError(f"the hub sent {what} compressed, which it was asked not to")
