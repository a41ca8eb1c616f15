"""An engine in a process of its own, behind the methods of an engine that a thread can drive.

Scheduling, sampling on the host and text then cost the serving process no turn of its interpreter;
what comes back is one message a step. A service on a GPU has it; ``PYTHIA_ENGINE_PROCESS`` says
otherwise.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import select
from collections.abc import Mapping
from typing import Any

from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.outputs import Outputs, SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.engine.residents import Residency
from pythia_bento.engine.stats import NUM_NUMBERS, EngineStats
from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.arena import SharedMemory
from pythia_bento.runtime.backend import LOOK_SECONDS, GiveUp, patiently
from pythia_bento.runtime.devices import Device
from pythia_bento.runtime.interrupts import Interrupts
from pythia_bento.runtime.loading import load_engine
from pythia_bento.runtime.model_info import Progress
from pythia_bento.runtime.process_main import (
    Abandoned,
    Load,
    Loaded,
    Numbers,
    Order,
    Told,
    main,
)
from pythia_bento.runtime.wire import Wire
from pythia_bento.settings import Settings

POLL_SECONDS = 1.0  # a step's outputs are waited for this long at a time, unless interrupted
CLOSE_SECONDS = 10.0


class EngineProcess:
    """A ``Backend`` for an ``EngineThread``, as ``Engine`` is one."""

    patience = CLOSE_SECONDS
    """How long one that has ended is waited for, to know its exit status."""

    def __init__(
        self,
        settings: Settings,
        on_progress: Progress,
        load: Load | None = None,
        memory: SharedMemory | None = None,
        device: Device | None = None,
        give_up: GiveUp = patiently,
    ) -> None:
        """Start the process and wait until it has loaded; ``memory`` is what it captures to.

        ``device`` is the one of a machine's that it has; by default the one of the settings.
        Raises what loading raises, and EngineUnavailable when the process dies or is given up.
        """
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        # Without a lock: a snapshot may be torn, as it may be within a process.
        self._stats: Numbers = context.RawArray("q", NUM_NUMBERS)
        self.wire = Wire()
        """For whoever waits for several processes at a time."""
        # At exit multiprocessing waits for the process, which waits for the wire's end.
        multiprocessing.util.Finalize(self, self.wire.close, exitpriority=10)
        theirs = self.wire.theirs
        self._process = context.Process(
            target=main,
            args=(theirs, self._stats, settings, load or load_engine, memory, device),
            name="engine",
            daemon=True,
        )
        self._process.start()
        theirs.close()  # so that its end is the end of the wire
        self._interrupts = Interrupts()
        self._poll = select.poll()
        self._poll.register(self._interrupts.fileno(), select.POLLIN)
        try:
            loaded = self._await_loaded(on_progress, give_up)
        except BaseException:
            self.close()
            raise
        self.residencies: Mapping[str, Residency] = loaded.residencies
        """See ``ShelfBackend``, as of the last step."""
        self._introduced: set[str] = set()
        self._writers: set[str] = set()  # requests for which the process may write to ``memory``
        self.info, self.limits = loaded.info, loaded.limits
        self.tokenizer, self.device_name = loaded.tokenizer, loaded.device_name

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def prepare(self, constraint: Constraint) -> None:
        """Nothing: the process does so before its engine sees the request."""

    def add_request(self, request: Request) -> None:
        """Hand a request over; an error comes back as the output of its sequences."""
        if request.capture is not None:
            self._writers.add(request.request_id)
        self._send(request)

    def abort(self, request_id: str) -> None:
        """End a request before the next step; an unknown id is ignored."""
        is_writer = request_id in self._writers
        self._send(Abandoned(request_id) if is_writer else request_id)

    def step(self) -> Outputs:
        """The outputs of the steps made meanwhile; none when there are none for a moment."""
        self._poll.register(self.wire.fileno(), self.wire.events)
        ready = dict(self._poll.poll(POLL_SECONDS * 1000))
        if self._interrupts.fileno() in ready:
            self._interrupts.clear()
        events = ready.get(self.wire.fileno(), 0)
        return self.exchange(events) if events else []

    def exchange(self, events: int) -> Outputs:
        """What a ``poll`` of ``wire`` has found ready: send what was kept, take what has come."""
        if events & select.POLLOUT:
            self._flush()
        outputs: Outputs = []
        if events & ~select.POLLOUT:
            for message in self._receive():
                if isinstance(message, dict):
                    self.residencies = message
                else:
                    outputs += [SequenceOutput(*fields) for fields in message]
        if self._writers:
            self._writers -= {o.request_id for o in outputs if o.finish_reason is not None}
        return outputs

    def interrupt(self) -> None:
        """Let ``step`` return at once: something was ordered. In any thread."""
        self._interrupts.set()

    def introduce(self, key: str, entry: Any) -> None:
        """See ``ShelfBackend``."""
        if key not in self._introduced:
            self._introduced.add(key)
            self._send(Told("introduce", {"key": key, "entry": entry}))

    def pin(self, key: str, *, is_pinned: bool) -> None:
        """See ``ShelfBackend``."""
        self._send(Told("pin", {"key": key, "is_pinned": is_pinned}))

    def unload(self, key: str) -> None:
        """See ``ShelfBackend``."""
        self._send(Told("unload", {"key": key}))

    def stats(self) -> EngineStats:
        """Counters as of a moment ago, and of the last step where nothing is left to do."""
        return EngineStats.of(self._stats[:])

    def kill(self) -> None:
        """Without a word; ``step`` finds out. In any thread, as ``join``."""
        self._process.kill()

    def join(self) -> None:
        """Wait until the process has ended."""
        self._process.join()

    def close(self) -> None:
        """End the process."""
        self.wire.close()  # whatever it waits for now, reading or writing, ends
        self._interrupts.close()
        self._process.join(CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _await_loaded(self, on_progress: Progress, give_up: GiveUp) -> Loaded:
        silent = 0
        while True:
            silent = 0 if self.wire.wait(LOOK_SECONDS) else silent + 1
            if why := give_up(silent):
                self.kill()  # one that hangs does not see that its wire has ended
                raise EngineUnavailable(f"the engine's process was given up: {why}")
            for message in self._receive():
                if isinstance(message, Loaded):
                    return message
                if isinstance(message, BaseException):
                    self._process.join()
                    raise message
                on_progress(*message)

    def _send(self, order: Order) -> None:
        try:
            self.wire.send(order)
        except OSError:
            raise self._dead() from None

    def _flush(self) -> None:
        try:
            self.wire.flush()
        except OSError:
            raise self._dead() from None

    def _receive(self) -> list[Any]:
        try:
            return self.wire.receive()
        except (EOFError, OSError):
            raise self._dead() from None

    def _dead(self) -> EngineUnavailable:
        self._process.join(self.patience)
        code = self._process.exitcode
        return EngineUnavailable(
            f"the engine's process ended{'' if code is None else f' with {code}'}"
        )
