"""The numbers that a request brings: in its lists, or in a file of tensors beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np

from pythia_bento.engine.inside_limits import check_values
from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.protocol.tensors import NotSafetensors, Stored, read

AT_ONCE = 2**18  # bytes that are looked at, or hashed, on the event loop: some 0.2 ms

Rows = tuple[float, ...] | tuple[tuple[float, ...], ...]


async def read_tensors(file: bytes | memoryview | None) -> Mapping[str, Stored]:
    """The tensors of a file, of which nothing is copied; raises InvalidRequest."""
    if file is None:
        return {}
    try:
        return (await asyncio.to_thread(read, file))[0]
    except NotSafetensors as error:
        words = f"tensors is not a safetensors file: {error}"
        raise InvalidRequest(words, param="tensors") from None


class NamedTensors:
    """What fields of one request mean by a name or by numbers, as fp32."""

    def __init__(self, stored: Mapping[str, Stored] | None) -> None:
        """None where the request cannot bring any."""
        self._stored = stored
        self._checked: dict[str, np.ndarray] = {}

    async def array(self, value: str | Rows, field: str) -> np.ndarray:
        """Finite, and at most 1e6 in magnitude; raises InvalidRequest, naming ``field``."""
        if isinstance(value, str):
            if value not in self._checked:
                self._checked[value] = await self._widened(value, field)
            return self._checked[value]
        try:
            wide = np.array(value, np.float64)
        except OverflowError:  # an integer of hundreds of digits
            wide = np.array([np.inf])
        _check(wide, field, field)
        return wide.astype(np.float32)

    async def _widened(self, name: str, field: str) -> np.ndarray:
        if self._stored is None:
            raise InvalidRequest(
                f"{field} names a tensor, which only /v1/activations takes; give numbers",
                param=field,
            )
        stored = self._stored.get(name)
        if stored is None:
            raise InvalidRequest(
                f"{field} is {shown(name)}, which is no tensor of this request", param=field
            )
        if stored.data.nbytes <= AT_ONCE:
            return _sound(stored, field, f"{field} {shown(name)}")
        return await asyncio.to_thread(_sound, stored, field, f"{field} {shown(name)}")


def _sound(stored: Stored, field: str, subject: str) -> np.ndarray:
    values = stored.widened()
    _check(values, field, subject)
    return values


def _check(values: np.ndarray, field: str, subject: str) -> None:
    try:
        check_values(values, subject)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param=field) from None
