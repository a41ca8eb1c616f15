"""A context variable that has a value for the length of a ``with``."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Bound(Generic[_Value]):
    """Written out because a call passes several, and a generator would cost three times as much."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[_Value], value: _Value) -> None:
        self._variable = variable
        self._value = value
        self._token: Token[_Value] | None = None

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, *exception: object) -> None:
        assert self._token is not None
        self._variable.reset(self._token)
