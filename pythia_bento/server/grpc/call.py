"""A call of gRPC, with what its client sent beside the message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from grpc.aio import ServicerContext

from pythia_bento.errors import InvalidRequest

Context: TypeAlias = "ServicerContext[Any, Any]"


@dataclass(slots=True)
class Call:
    """One call of a method."""

    method: str  # "/package.Service/Method"
    context: Context
    metadata: dict[str, str | bytes]  # what the caller sent beside the message
    repeated: frozenset[str] = frozenset()  # names of metadata that came several times

    @classmethod
    def of(cls, method: str, context: Context) -> Call:
        """Reads the metadata, which are made anew each time they are asked for."""
        pairs: Any = context.invocation_metadata() or ()
        metadata = dict(pairs)
        if len(metadata) == len(pairs):
            return cls(method, context, metadata)
        names = [name for name, _ in pairs]
        return cls(method, context, metadata, frozenset(n for n in names if names.count(n) > 1))

    def text(self, name: str) -> str | None:
        """One of the metadata, unless it is missing or of bytes."""
        value = self.metadata.get(name)
        return value if isinstance(value, str) else None

    def lone_text(self, name: str) -> str | None:
        """``text`` of what may come once: readers would differ in which one counts."""
        if name in self.repeated:
            raise InvalidRequest(f"the metadata have {name} several times", param=name)
        return self.text(name)
