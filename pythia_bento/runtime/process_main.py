"""What runs in the engine's own process: orders in, outputs out."""

from __future__ import annotations

import contextlib
import gc
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any, Literal

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.outputs import Outputs, SequenceOutput, failure
from pythia_bento.engine.params import Request
from pythia_bento.engine.residents import Residency
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits
from pythia_bento.errors import PythiaError
from pythia_bento.runtime.arena import SharedMemory
from pythia_bento.runtime.backend import MOST_ORDERS, ORDERS_SECONDS, SWITCH_SECONDS
from pythia_bento.runtime.devices import Device, device_name
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.settings import Settings
from pythia_bento.telemetry import logs

# How often numbers are told while there is work: of many checkpoints they take longer than a step's
# other work for the host.
NUMBERS_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Told:
    """A method of ``ShelfBackend`` that is to be called."""

    method: Literal["introduce", "pin", "unload"]
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A request that is to be aborted, and whose last output is to be told all the same."""

    request_id: str


Load = Callable[[Settings, Progress], tuple[Engine | EngineGroup, ModelInfo]]
Order = Request | str | Abandoned | Told  # an id is one to abort
Orders = queue.SimpleQueue[Order | None]  # None is the end
Numbers = Any  # multiprocessing's array of NUM_NUMBERS 64-bit integers


@dataclass(frozen=True, slots=True)
class Loaded:
    """The first message of a process that has loaded its model."""

    info: ModelInfo
    limits: Limits
    tokenizer: Tokenizer
    residencies: Mapping[str, Residency]
    device_name: str  # of what computes: equal ones give equal bits


def main(
    pipe: Connection,
    numbers: Numbers,
    settings: Settings,
    load: Load,
    memory: SharedMemory | None = None,
    device: Device | None = None,
) -> None:
    """The process: orders in, outputs out, until nobody is there any more."""
    logs.install(settings.log_format)
    for number in (signal.SIGINT, signal.SIGTERM):  # which supervisors send to all processes
        signal.signal(number, signal.SIG_IGN)  # the serving process says when
    if device is not None:
        device.take()
    try:
        engine, info = load(settings, lambda *progress: _send(pipe, progress))
    except PythiaError as error:
        _send(pipe, error)
        return
    if memory is not None:
        engine.lend(memory.array)
    shown = _residencies(engine)
    numbers[:] = engine.stats().numbers()  # how much room there is
    _send(pipe, Loaded(info, engine.limits, engine.tokenizer, shown, device_name(info)))
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what lives now lives on: later collections need not look at it
    orders: Orders = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, orders, engine), daemon=True).start()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        told = 0.0
        while _follow(orders, engine, pipe):
            if outputs := engine.step():
                _send_outputs(pipe, outputs)
            if (now := _residencies(engine)) is not shown:
                _send(pipe, shown := now)
            if not engine.has_work or time.monotonic() >= told + NUMBERS_SECONDS:
                numbers[:] = engine.stats().numbers()
                told = time.monotonic()
    engine.close()


_NONE: Mapping[str, Residency] = {}


def _residencies(engine: Engine | EngineGroup) -> Mapping[str, Residency]:
    return engine.residencies if isinstance(engine, EngineGroup) else _NONE


def _read(pipe: Connection, orders: Orders, engine: Engine | EngineGroup) -> None:
    """On a thread, so that neither side ever waits for the other to read before it reads."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            order = pickle.loads(pipe.recv_bytes())
            if isinstance(order, Request) and order.params.constraint is not None:
                # Here, while the engine goes on; what is wrong with it ``add_request`` finds again.
                with contextlib.suppress(PythiaError):
                    engine.prepare(order.params.constraint)
            orders.put(order)
    orders.put(None)


def _follow(orders: Orders, engine: Engine | EngineGroup, pipe: Connection) -> bool:
    """Wait for work and do some of what was ordered; false when it is time to end."""
    began = time.monotonic()
    for _ in range(MOST_ORDERS):
        try:
            if engine.has_work:
                if time.monotonic() > began + ORDERS_SECONDS:
                    return True
                order = orders.get(block=False)
            else:
                order = orders.get()
                began = time.monotonic()
        except queue.Empty:
            return True
        if order is None:
            return False
        if isinstance(order, str):
            engine.abort(order)
            if not engine.has_work:
                return True  # what was freed is to be seen
        elif isinstance(order, Abandoned):
            _send_outputs(pipe, engine.abort(order.request_id) or [_aborted(order.request_id)])
            if not engine.has_work:
                return True
        elif isinstance(order, Told):
            getattr(engine, order.method)(**order.arguments)
            if not engine.has_work:
                return True  # so that it is seen
        else:
            try:
                engine.add_request(order)
            except PythiaError as error:
                failures = [failure(order.request_id, i, error) for i in range(order.n)]
                _send_outputs(pipe, failures)
    return True


def _aborted(request_id: str) -> SequenceOutput:
    return SequenceOutput(request_id, 0, [], "", finish_reason="abort")


# Outputs cross as plain tuples: as objects they would take several times as long.
_fields = attrgetter(*(field.name for field in fields(SequenceOutput)))


def _send_outputs(pipe: Connection, outputs: Outputs) -> None:
    _send(pipe, [_fields(output) for output in outputs])


def _send(pipe: Connection, message: Any) -> None:
    pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
