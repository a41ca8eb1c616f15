"""Who may ask, how often, and how much at a time: one rule for every transport."""

from __future__ import annotations

import hmac
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pythia_bento.errors import EngineUnavailable, Overloaded, PermissionDenied, Unauthenticated
from pythia_bento.server.access.keys import ApiKey, digest, read_keys
from pythia_bento.settings import Settings
from pythia_bento.telemetry.calls import current_call

Grow = Callable[[int], None]
FREE_BYTES = 64 * 1024  # of each body: small ones arrive whatever the large ones take
BUSY_SECONDS = 1.0  # when to come again while too many requests are open: nobody knows


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


class AccessControl:
    """Knows the API keys and counts what each of them asks.

    Without keys everybody is the one caller ``anyone``, and limits hold for all together.
    """

    def __init__(
        self,
        keys: Sequence[ApiKey] | None,
        requests_per_minute: int | None = None,
        concurrent_requests: int | None = None,
        bodies: BodyRoom | None = None,
    ) -> None:
        self.in_flight = InFlight()
        self.bodies = bodies or BodyRoom()
        """What requests bring, over all transports."""
        self.check_room: Callable[[str], None] = lambda caller: None
        """Raises Overloaded while the engine takes nothing of a caller's; set by who has it."""
        self._keys = keys
        names = ["anyone"] if keys is None else [key.name for key in keys]
        self._quotas = {name: _Quota(requests_per_minute, concurrent_requests) for name in names}

    @classmethod
    def from_settings(cls, settings: Settings) -> AccessControl:
        """Raises SettingsError for keys that cannot be read."""
        return cls(
            read_keys(settings),
            settings.key_requests_per_minute,
            settings.key_concurrent_requests,
            BodyRoom(settings.max_open_bytes),
        )

    @contextmanager
    def enter(self, authorization: str | None, *, generates: bool = False) -> Iterator[str]:
        """Hold a place among the caller's concurrent requests until the context ends.

        Yields the caller, the name of an API key or ``anyone``, and notes it in the current call:
        for its log line, its trace, and its turns in the engine.

        ``authorization`` is the value of the header or metadata of that name, ``Bearer <key>``.
        What ``generates`` is refused here while the engine is full, before anybody reads it.
        Raises Unauthenticated, PermissionDenied, Overloaded or EngineUnavailable.
        """
        caller = self._identify(authorization)
        quota = self._quotas[caller]
        self.in_flight.enter()
        try:
            quota.take()
            try:
                if generates:
                    self.check_room(caller)
                if (call := current_call()) is not None:
                    call.caller = caller
                yield caller
            finally:
                quota.give_back()
        finally:
            self.in_flight.leave()

    def caller_of(self, authorization: str | None) -> str | None:
        """Whose turn a request takes to be let in: a key's name, or "" where that is wrong.

        None where everybody is let in, as callers are not told apart then.
        """
        if self._keys is None:
            return None
        try:
            key = self._find(_bearer(authorization))
        except Unauthenticated:
            return ""
        return key.name if key is not None else ""

    def _identify(self, authorization: str | None) -> str:
        if self._keys is None:
            return "anyone"
        key = self._find(_bearer(authorization))
        if key is None:
            raise Unauthenticated("the API key is not known to this server")
        if key.suspended:
            raise PermissionDenied(f"the API key {key.name!r} is suspended")
        return key.name

    def _find(self, presented: str) -> ApiKey | None:
        """Compares with every key, whichever fits, so that time tells nothing."""
        wanted, found = digest(presented), None
        for key in self._keys or ():
            if hmac.compare_digest(key.digest, wanted):
                found = key
        return found


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("an API key is required: send the header Authorization: Bearer <key>")
    return key.strip()


class InFlight:
    """Requests over all transports, from their arrival to the last byte of their answer.

    Any thread may call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._count = 0
        self._entered = 0
        self._when_empty: Callable[[], object] | None = None  # set once closed

    @property
    def count(self) -> int:
        """Those that are open."""
        return self._count

    @property
    def entered(self) -> int:
        """All that ever came."""
        return self._entered

    def check_open(self) -> None:
        """Raise EngineUnavailable once closed."""
        if self._when_empty is not None:
            raise EngineUnavailable("the server is shutting down")

    def enter(self) -> None:
        """Count one more until ``leave``; raises EngineUnavailable once closed."""
        with self._lock:
            self.check_open()
            self._count += 1
            self._entered += 1

    def leave(self) -> None:
        """Count one less; the last one to leave after ``close`` calls its ``when_empty``."""
        with self._lock:
            self._count -= 1
            when_empty = None if self._count else self._when_empty
        if when_empty:
            when_empty()

    def close(self, when_empty: Callable[[], object]) -> None:
        """Let nobody in; ``when_empty`` is called once all have left, perhaps at once."""
        with self._lock:
            self._when_empty = when_empty
            is_empty = not self._count
        if is_empty:
            when_empty()


class _Quota:
    """One caller's token bucket and open requests; any thread may ask."""

    def __init__(self, per_minute: int | None, concurrent: int | None) -> None:
        self._per_minute = per_minute
        self._concurrent = concurrent
        self._lock = threading.Lock()  # guards what follows
        self._open = 0
        self._tokens = float(per_minute or 0)
        self._filled = time.monotonic()

    def take(self) -> None:
        """Take a token and a place; raises Overloaded, which takes neither."""
        with self._lock:
            self._check_open()
            self._take_token()
            self._open += 1

    def give_back(self) -> None:
        """The place; the token is spent."""
        with self._lock:
            self._open -= 1

    def _check_open(self) -> None:
        if self._concurrent is not None and self._open >= self._concurrent:
            raise Overloaded(
                f"{self._open} requests of this caller are open, and the limit is "
                f"{self._concurrent}; try again when one has ended",
                retry_after=BUSY_SECONDS,
            )

    def _take_token(self) -> None:
        if self._per_minute is None:
            return
        now, rate = time.monotonic(), self._per_minute / 60
        self._tokens = min(self._tokens + (now - self._filled) * rate, self._per_minute)
        self._filled = now
        if self._tokens < 1:
            wait = math.ceil((1 - self._tokens) / rate)
            raise Overloaded(
                f"this caller's limit is {self._per_minute} requests a minute; try again in "
                f"{wait} s",
                retry_after=wait,
            )
        self._tokens -= 1
