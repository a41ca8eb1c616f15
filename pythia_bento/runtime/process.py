"""An engine in a process of its own, behind the methods of an engine that a thread can drive.

Scheduling, sampling on the host and text then cost the serving process no turn of its interpreter;
what comes back is one message a step. A service on a GPU has it; ``PYTHIA_ENGINE_PROCESS`` says
otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import multiprocessing.util
import pickle
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import Request, SequenceOutput
from pythia_bento.engine.stats import NUM_NUMBERS, EngineStats
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits
from pythia_bento.errors import EngineUnavailable, PythiaError
from pythia_bento.runtime.loading import load_engine
from pythia_bento.runtime.runner import ModelInfo, Progress, limits_of
from pythia_bento.runtime.streams import Outputs, failure
from pythia_bento.settings import Settings
from pythia_bento.telemetry import logs

POLL_SECONDS = 1.0  # a step's outputs are waited for this long at a time, unless interrupted
CLOSE_SECONDS = 10.0
# How long the thread that reads orders waits for the interpreter. Python's default is 5 ms.
SWITCH_SECONDS = 0.0005

Load = Callable[[Settings, Progress], tuple[Engine, ModelInfo]]
Orders = queue.SimpleQueue["Request | str | None"]  # a new one, an id to abort, the end
Numbers = Any  # multiprocessing's array of NUM_NUMBERS 64-bit integers


@dataclass(frozen=True, slots=True)
class Loaded:
    """The first message of a process that has loaded its model."""

    info: ModelInfo
    limits: Limits
    tokenizer: Tokenizer


class EngineProcess:
    """Stands where ``Engine`` stands in an ``EngineThread``; for one thread, but for ``stats``."""

    def __init__(self, settings: Settings, on_progress: Progress, load: Load | None = None) -> None:
        """Start the process and wait until it has loaded.

        Raises what loading raises, and EngineUnavailable when the process dies.
        """
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        # Without a lock: a snapshot may be torn, as it may be within a process.
        self._stats: Numbers = context.RawArray("q", NUM_NUMBERS)
        self._pipe, theirs = context.Pipe()
        # At exit multiprocessing waits for the process, which waits for the pipe's end.
        multiprocessing.util.Finalize(self, self._pipe.close, exitpriority=10)
        self._process = context.Process(
            target=_main,
            args=(theirs, self._stats, settings, load or load_engine),
            name="engine",
            daemon=True,
        )
        self._process.start()
        theirs.close()  # so that its end is the end of the pipe
        self._unfinished: dict[str, set[int]] = {}
        self._interrupts = Interrupts()
        self._poll = select.poll()
        for descriptor in (self._pipe.fileno(), self._interrupts.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        loaded = self._await_loaded(on_progress)
        self.info, self.limits = loaded.info, loaded.limits
        self.tokenizer = loaded.tokenizer

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has something to wait for."""
        return bool(self._unfinished)

    def add_request(self, request: Request) -> None:
        """Hand a request over; an error comes back as the output of its sequences."""
        self._unfinished[request.request_id] = set(range(request.n))
        self._send(replace(request, call=None))  # which is of no use there

    def abort(self, request_id: str) -> None:
        """End a request before the next step."""
        if self._unfinished.pop(request_id, None):
            self._send(request_id)

    def step(self) -> list[SequenceOutput]:
        """The outputs of the steps made meanwhile; none when there are none for a moment."""
        ready = {descriptor for descriptor, _ in self._poll.poll(POLL_SECONDS * 1000)}
        if self._interrupts.fileno() in ready:
            self._interrupts.clear()
        if self._pipe.fileno() not in ready:
            return []
        outputs = [SequenceOutput(*fields) for fields in self._receive()]
        for output in outputs:
            if output.finish_reason is not None:
                self._finished(output)
        return outputs

    def interrupt(self) -> None:
        """Let ``step`` return at once: something was ordered. In any thread."""
        self._interrupts.set()

    def _finished(self, output: SequenceOutput) -> None:
        if unfinished := self._unfinished.get(output.request_id):
            unfinished.discard(output.index)
            if not unfinished:
                del self._unfinished[output.request_id]

    def stats(self) -> EngineStats:
        """Counters as of the last step."""
        return EngineStats.of(self._stats[:])

    def close(self) -> None:
        """End the process."""
        self._pipe.close()  # whatever it waits for now, reading or writing, ends
        self._interrupts.close()
        self._process.join(CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._unfinished.clear()

    def _await_loaded(self, on_progress: Progress) -> Loaded:
        while True:
            message = self._receive()
            if isinstance(message, Loaded):
                return message
            if isinstance(message, BaseException):
                self._process.join()
                raise message
            on_progress(*message)

    def _send(self, order: Request | str) -> None:
        try:
            self._pipe.send_bytes(pickle.dumps(order, pickle.HIGHEST_PROTOCOL))
        except OSError:
            raise self._dead() from None

    def _receive(self) -> Any:
        try:
            return pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise self._dead() from None

    def _dead(self) -> EngineUnavailable:
        self._process.join(CLOSE_SECONDS)
        return EngineUnavailable(f"the engine's process ended with {self._process.exitcode}")


class Interrupts:
    """A flag that ``poll`` can wait for, beside a pipe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._is_set = False
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)

    def fileno(self) -> int:
        """Readable while the flag is set."""
        return self._reader.fileno()

    def set(self) -> None:
        """In any thread; harmless when it is set, or closed."""
        with self._lock:
            if not self._is_set and not self._writer.closed:
                self._is_set = True
                self._writer.send_bytes(b"!")

    def clear(self) -> None:
        """Unset it."""
        with self._lock:
            self._is_set = False
            self._reader.recv_bytes()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._reader.close()
            self._writer.close()


def _main(pipe: Connection, numbers: Numbers, settings: Settings, load: Load) -> None:
    """The process: orders in, outputs out, until nobody is there any more."""
    logs.install(settings.log_format)
    for number in (signal.SIGINT, signal.SIGTERM):  # which supervisors send to all processes
        signal.signal(number, signal.SIG_IGN)  # the serving process says when
    try:
        engine, info = load(settings, lambda *progress: _send(pipe, progress))
    except PythiaError as error:
        _send(pipe, error)
        return
    engine.limits = limits_of(engine, settings)
    _send(pipe, Loaded(info, engine.limits, engine.tokenizer))
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what lives now lives on: later collections need not look at it
    orders: Orders = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, orders), daemon=True).start()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while _follow(orders, engine, pipe):
            if outputs := engine.step():
                _send_outputs(pipe, outputs)
            numbers[:] = engine.stats().numbers()
    engine.close()


def _read(pipe: Connection, orders: Orders) -> None:
    """On a thread, so that neither side ever waits for the other to read before it reads."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            orders.put(pickle.loads(pipe.recv_bytes()))
    orders.put(None)


def _follow(orders: Orders, engine: Engine, pipe: Connection) -> bool:
    """Wait for work and do what was ordered; false when it is time to end."""
    while True:
        try:
            order = orders.get(block=not engine.has_work)
        except queue.Empty:
            return True
        if order is None:
            return False
        if isinstance(order, str):
            engine.abort(order)
            if not engine.has_work:
                return True  # what was freed is to be seen
        else:
            try:
                engine.add_request(order)
            except PythiaError as error:
                failures = [failure(order.request_id, i, error) for i in range(order.n)]
                _send_outputs(pipe, failures)


# Outputs cross as plain tuples: as objects they would take several times as long.
_fields = attrgetter(*(field.name for field in fields(SequenceOutput)))


def _send_outputs(pipe: Connection, outputs: Outputs) -> None:
    _send(pipe, [_fields(output) for output in outputs])


def _send(pipe: Connection, message: Any) -> None:
    pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
