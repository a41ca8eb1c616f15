"""What goes wrong on demand: one rule for each request that shall fail."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Applies to the next ``times`` requests whose method and path match."""

    path: str  # searched as a regular expression
    method: str = "GET"
    status: int | None = None  # answer with this instead
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"failed on demand"  # of that answer
    endless: bool = False  # and again and again
    cut_after: int | None = None  # close the connection after so many bytes of the body
    flip_at: int | None = None  # invert the byte at this offset of the file
    truncate_to: int | None = None  # serve only so many bytes, and call that the whole
    delay: float = 0.0  # seconds before each piece of 16 KiB
    times: int = 1


class Faults:
    """The rules in force; requests take from them in any thread."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._mutex = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._mutex:
            self._rules.append(fault)

    def clear(self) -> None:
        with self._mutex:
            self._rules.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The first rule that matches, counted down."""
        with self._mutex:
            for rule in self._rules:
                if rule.times and rule.method == method and re.search(rule.path, path):
                    rule.times -= 1
                    return rule
        return None
