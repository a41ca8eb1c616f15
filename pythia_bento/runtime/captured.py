"""What requests have shown of their passes, as long as somebody reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pythia_bento.engine.capture import capture_bytes
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.model.config import ModelConfig
from pythia_bento.runtime.arena import Region

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Captured:
    """Close it, or use it as a context manager: it holds memory that others wait for.

    Who holds one must not wait for another: two that do so could wait for each other.
    """

    outputs: list[list[SequenceOutput]]
    """Of each request, see ``Served.complete``."""
    memory: list[memoryview]
    """What each one's ``engine.capture.layout`` says, bytes; empty where nothing is captured."""
    region: Region

    def close(self) -> None:
        """Nobody reads ``memory`` any more; harmless when repeated."""
        self.region.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def sizes(requests: Sequence[Request], config: ModelConfig) -> list[int]:
    """Bytes of each one's part, as ``capture_bytes`` has them."""
    return [
        0 if one.capture is None else capture_bytes(one.capture, config, one.most_inputs)
        for one in requests
    ]


def placed(requests: Sequence[Request], nbytes: Sequence[int], region: Region) -> list[Request]:
    """The same requests, one after the other in a region."""
    offset, found = region.offset, []
    for request, size in zip(requests, nbytes, strict=True):
        if request.capture is not None:
            request = replace(request, capture=replace(request.capture, region=offset))
        found.append(request)
        offset += size
    return found


def parts(nbytes: Sequence[int], region: Region) -> list[memoryview]:
    """Of a region, one of each size after the other."""
    memory, offset, found = region.memory, 0, []
    for size in nbytes:
        found.append(memory[offset : offset + size])
        offset += size
    return found
