"""Answers that come as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic

from pythia_bento.client import http_messages
from pythia_bento.client.events import EventReader
from pythia_bento.client.transport import Result
from pythia_bento.errors import EngineUnavailable
from pythia_bento.protocol.types import Part


class Answer(Generic[Result]):
    """The events of an answer, which says itself where it ends."""

    def __init__(self, result: Callable[[bytes], Result]) -> None:
        """``result`` reads the data of an event."""
        self._result = result
        self._events = EventReader()
        self._has_ended = False

    def read(self, piece: bytes) -> Iterator[Result]:
        """What a piece of the answer completes; raises what an event tells of."""
        for data in self._events.read(piece):
            if data == http_messages.END:
                self._has_ended = True
            else:
                yield self._result(data)

    def check_end(self) -> None:
        """Raise EngineUnavailable where the answer has no end."""
        if not self._has_ended:
            raise EngineUnavailable("the server's answer broke off: it has no end")


class PartReader:
    """Reads what ``generate_stream`` yields, in a service or by one of BentoML's clients.

    These make of an answer whatever pieces arrive together: an event may be in several.
    """

    def __init__(self) -> None:
        self._answer = Answer(http_messages.part)

    def read(self, piece: str) -> Iterator[Part]:
        """The parts that ``piece`` completes; raises the PythiaError that an event tells of."""
        return self._answer.read(piece.encode())

    def check_end(self) -> None:
        """Raise EngineUnavailable unless the answer has ended; to be called behind all pieces."""
        self._answer.check_end()
