"""How a call's message is read: in its time, within the room that all bodies share, and in pieces.

Protobuf reads a message in one go and keeps the interpreter for itself: 8 MiB of the smallest parts
take a third of a second. A message is the same as its fields put together one after another, so a
large one is read some fields at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from pythia_bento.engine.validate import Limits
from pythia_bento.errors import InvalidRequest
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.access.control import BodyRoom, Grow
from pythia_bento.server.grpc.call import Call
from pythia_bento.server.grpc.held_calls import HeldCalls

PIECE = 2**15  # bytes that are read at once, but for a field that has more
BYTES_OF_A_CHARACTER = 4  # at most
LOOK = 256  # fields that are looked at at once
PACKAGE = "pythia.v1"  # whose messages may have no unknown fields; others have rules of their own
VARINT_BYTES = 10  # at most
MAX_BYTES = 3 * 2**20  # of a field of bytes, which is copied and not read

Read = Callable[[Call, Grow], Awaitable[Any]]


class Intake:
    """For one server."""

    def __init__(self, arrivals: HeldCalls, room: BodyRoom, limits: Limits) -> None:
        """``arrivals`` are the calls whose message is on its way."""
        self._arrivals = arrivals
        self._room = room
        self._max_field_bytes = PIECE + BYTES_OF_A_CHARACTER * limits.max_text_chars
        self._max_bytes_field = max(self._max_field_bytes, MAX_BYTES + PIECE)
        self._max_fields = max(limits.max_text_chars, limits.max_sequences)

    def place(self) -> AbstractContextManager[Grow]:
        """Of one message, to be held until it is answered."""
        return self._room.place()

    def reader(self, deserialize: Any) -> Read:
        """What reads the next message of a call, which has a place; None behind the last one.

        Raises InvalidRequest, Overloaded, and what ``HeldCalls.hold`` raises.
        """
        kind = getattr(deserialize, "__self__", None)

        async def read(call: Call, grow: Grow) -> Any:
            data = await self._arrivals.hold(call.context.read)
            if data is grpc.aio.EOF:
                return None
            grow(len(data))
            try:
                if len(data) > PIECE and isinstance(kind, type) and issubclass(kind, Message):
                    return await self._in_pieces(kind(), data)
                message = deserialize(data) if deserialize else data
                check_known(message)
                return message
            except InvalidRequest:
                raise
            except Exception:  # protobuf's implementations raise each their own
                # Left to grpc, that would be UNKNOWN.
                message = f"the message is not a request of {call.method[1:]}"
                raise InvalidRequest(message) from None

        return read

    async def _in_pieces(self, message: Message, data: bytes) -> Message:
        turns, start, place, count = Turns(), 0, 0, 0
        while place < len(data):
            begin, place, count = place, _end_of_field(data, place), count + 1
            if place - begin > self._max_field_bytes:
                is_copied = _is_of_bytes(message, data, begin)
                most = self._max_bytes_field if is_copied else self._max_field_bytes
                if place - begin > most:
                    raise InvalidRequest(
                        f"a field of the message has {place - begin} bytes, but the limit is {most}"
                    )
            if count > self._max_fields:
                raise InvalidRequest(f"the message has more than {self._max_fields} entries")
            if place - start >= PIECE:
                _merge(message, data[start:place])
                start = place
            if start == place or count % LOOK == 0:
                await turns.take()
        _merge(message, data[start:])
        return message


def _merge(message: Message, data: bytes) -> None:
    """Some of its fields, into a message."""
    check_known(type(message).FromString(data))
    message.MergeFromString(data)


def check_known(message: Any) -> None:
    """Raise InvalidRequest where a message of ours has fields that its kind has not.

    Protobuf passes over them: a client would take an answer without its option for one with it.
    """
    if not isinstance(message, Message) or message.DESCRIPTOR.file.package != PACKAGE:
        return
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise InvalidRequest(
            f"the message, or a part of it, has fields that {message.DESCRIPTOR.full_name} and its "
            "parts have not; is the client newer than the server?"
        )


def _end_of_field(data: bytes, place: int) -> int:
    """Where the field ends that begins here; raises DecodeError, perhaps IndexError."""
    tag, place = _varint(data, place)
    match tag & 7:
        case 0:
            _, place = _varint(data, place)
        case 1:
            place += 8
        case 2:
            length, place = _varint(data, place)
            place += length
        case 5:
            place += 4
        case _:  # groups, which no message here has
            raise DecodeError
    if place > len(data):
        raise DecodeError
    return place


def _is_of_bytes(message: Message, data: bytes, begin: int) -> bool:
    """Whether the field that begins there is one of bytes."""
    tag, _ = _varint(data, begin)
    field = message.DESCRIPTOR.fields_by_number.get(tag >> 3)
    return field is not None and field.type == FieldDescriptor.TYPE_BYTES


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 7 * VARINT_BYTES, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise DecodeError
