"""Outputs of some requests on their way to whoever reads them, in an event loop or any thread."""

from __future__ import annotations

import asyncio
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from pythia_bento.engine.outputs import Outputs, SequenceOutput, failure
from pythia_bento.engine.params import Request
from pythia_bento.errors import DeadlineExceeded
from pythia_bento.telemetry.request_timings import RequestTimings


class Stream(ABC):
    """The outputs of some requests. Every sequence ends in one output with a finish reason.

    An error ends a sequence as an output too: ``finish_reason`` "error" with ``error`` set.
    """

    def __init__(
        self, requests: Sequence[Request], timeout: float, abort: Callable[[Sequence[str]], None]
    ) -> None:
        self.request_ids = [request.request_id for request in requests]
        self.timeout = timeout
        self.timings: list[RequestTimings] = []
        """What became of each request, once they were taken."""
        self._abort = abort
        # Sequences whose end has not come here. The engine's thread may know of it already.
        self._unread = {(r.request_id, index) for r in requests for index in range(r.n)}
        self._is_whole = False  # whether its reader wants everything at once
        # For such a reader the engine's thread joins what it brings, while others have their turn.
        self._joined: dict[tuple[str, int], SequenceOutput] = {}

    @abstractmethod
    def start(self) -> None:
        """The requests were taken: from now on their time runs."""

    @abstractmethod
    def post(self, outputs: Outputs) -> None:
        """Called for each step's outputs, in the thread that reads the stream."""

    def due(self, outputs: Outputs) -> Outputs:
        """Called in the engine's thread: what to post now of a step's outputs and those before."""
        if not self._is_whole:
            return outputs
        whole = []
        for output in outputs:
            sequence = output.request_id, output.index
            if (joined := self._joined.get(sequence)) is not None:
                joined.extend(output)
            else:
                joined = self._joined[sequence] = output.copy()
            if output.finish_reason is not None:
                whole.append(self._joined.pop(sequence))
        return whole

    def close(self) -> None:
        """End what is unfinished; harmless afterwards."""
        if self._unread:
            self._unread.clear()
            self._abort(self.request_ids)

    def _received(self, outputs: Outputs) -> Outputs:
        """Keep what belongs to unfinished sequences: the end may have come another way."""
        kept = []
        for output in outputs:
            sequence = output.request_id, output.index
            if sequence in self._unread:
                kept.append(output)
                if output.finish_reason is not None:
                    self._unread.remove(sequence)
        return kept

    def _expire(self) -> Outputs:
        error = DeadlineExceeded(f"the request did not finish within {self.timeout:g} seconds")
        late = sorted(self._unread)
        self.close()
        return [failure(request_id, index, error) for request_id, index in late]


class AsyncStream(Stream):
    """Read with ``async for`` in the event loop that made it: lists of outputs, never empty."""

    def __init__(
        self, requests: Sequence[Request], timeout: float, abort: Callable[[Sequence[str]], None]
    ) -> None:
        super().__init__(requests, timeout, abort)
        self.loop = asyncio.get_running_loop()  # where ``post`` is called
        self._arrived: Outputs = []
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """See Stream."""
        self._timer = self.loop.call_later(self.timeout, lambda: self._arrive(self._expire()))

    def post(self, outputs: Outputs) -> None:
        """See Stream."""
        self._arrive(self._received(outputs))

    def close(self) -> None:
        """See Stream."""
        self._stop_timer()
        super().close()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Outputs:
        while not self._arrived:
            if not self._unread:
                self._stop_timer()
                raise StopAsyncIteration
            self._waiter = self.loop.create_future()
            await self._waiter
        arrived, self._arrived = self._arrived, []
        return arrived

    @property
    def has_ended(self) -> bool:
        """Whether its reader has everything: no outputs follow."""
        return not self._unread and not self._arrived

    async def all(self) -> Outputs:
        """Everything at once when the last sequence has ended; wakes its reader only then."""
        self._is_whole = True
        return [output async for outputs in self for output in outputs]

    def _stop_timer(self) -> None:
        # A handle left to run out would keep the whole answer alive until then.
        if self._timer is not None:
            self._timer.cancel()

    def _arrive(self, outputs: Outputs) -> None:
        self._arrived += outputs
        if self._waiter is None or self._waiter.done():
            return
        if not self._is_whole or not self._unread:
            self._waiter.set_result(None)


class SyncStream(Stream):
    """Read with ``for`` in any thread."""

    def __init__(
        self, requests: Sequence[Request], timeout: float, abort: Callable[[Sequence[str]], None]
    ) -> None:
        super().__init__(requests, timeout, abort)
        self._deadline = 0.0  # of time.monotonic
        self._arrived: queue.SimpleQueue[Outputs] = queue.SimpleQueue()

    def start(self) -> None:
        """See Stream."""
        self._deadline = time.monotonic() + self.timeout

    def post(self, outputs: Outputs) -> None:
        """See Stream."""
        self._arrived.put(outputs)

    def __iter__(self) -> SyncStream:
        return self

    def __next__(self) -> Outputs:
        while self._unread:
            try:
                left = max(self._deadline - time.monotonic(), 0)
                outputs = self._received(self._arrived.get(timeout=left))
            except queue.Empty:
                return self._expire()
            if outputs:
                return outputs
        raise StopIteration
