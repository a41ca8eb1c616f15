"""What the bodies of all requests may hold together, whatever brings them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pythia_bento.errors import Overloaded

Grow = Callable[[int], None]
FREE_BYTES = 64 * 1024  # of each body: small ones arrive whatever the large ones take


class BodyRoom:
    """Counts the bytes of all bodies that are read or answered, so that many have a limit too."""

    def __init__(self, most: int = 64 * 2**20) -> None:
        self.most = most
        self.taken = 0

    @contextmanager
    def place(self) -> Iterator[Grow]:
        """A body's: told the size that the body has, it raises Overloaded above the limit."""
        own = 0

        def grow(size: int) -> None:
            nonlocal own
            more = max(size - FREE_BYTES, 0) - own
            if more > 0 and self.taken + more > self.most:
                raise Overloaded(
                    f"bodies of requests under way have {self.taken} bytes, and {more} more would "
                    f"pass their limit of {self.most} (PYTHIA_MAX_OPEN_BYTES); try again later"
                )
            own += more
            self.taken += more

        try:
            yield grow
        finally:
            self.taken -= own
