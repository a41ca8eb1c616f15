"""What an engine is to the thread that drives it, whether it computes here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.outputs import Outputs
from pythia_bento.engine.params import Request
from pythia_bento.engine.residents import Residency
from pythia_bento.engine.stats import EngineStats
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits

# Requests that begin or end between two steps: as many as cost no more than a step does. Those of a
# hundred continuations each take longer, and others wait for the step.
MOST_ORDERS = 512
ORDERS_SECONDS = 0.01
# How long, in a process that serves, a thread waits for the interpreter: the engine's when it comes
# back from the device, and those that read a checkpoint after each piece. Python's default of 5 ms
# is half the time of what the engine queues on the device.
SWITCH_SECONDS = 0.0005

LOOK_SECONDS = 0.25
GiveUp = Callable[[int], str | None]
"""Asked while an engine's process starts, after so many looks in a row, LOOK_SECONDS each, in which
it told nothing: why it is to be given up, or None. Who was stopped meanwhile has looked once."""


def patiently(silent_looks: int) -> None:
    """A ``GiveUp`` for who starts the service, and sees how long that takes."""


class Backend(Protocol):
    """``Engine``, or ``EngineProcess`` in its place. For one thread unless said otherwise."""

    @property
    def limits(self) -> Limits:
        """What one request may ask for."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether requests are taken. In any thread."""
        ...

    def prepare(self, constraint: Constraint) -> None:
        """Compile what requests are to ask for. In any thread, for which it may take seconds.

        Raises InvalidRequest or Overloaded; ``add_request`` does too, of one that is not prepared.
        """
        ...

    def add_request(self, request: Request) -> None:
        """Queue a request that ``validate`` has passed; raises a PythiaError where it cannot."""
        ...

    def abort(self, request_id: str) -> Outputs | None:
        """End a request before the next step; an unknown id is ignored.

        Returns None where that is still to be done: what wrote to the arena then has a last output
        that comes with those of ``step``.
        """
        ...

    def step(self) -> Outputs:
        """What became known of the sequences meanwhile, perhaps nothing."""
        ...

    def interrupt(self) -> None:
        """Let a ``step`` that waits for others return. In any thread."""
        ...

    def stats(self) -> EngineStats:
        """Gauges and counters; a snapshot that may be torn between two steps. In any thread."""
        ...

    def close(self) -> object:
        """End everything and free the model."""
        ...


class ShelfBackend(Backend, Protocol):
    """``EngineGroup``, or ``EngineProcess`` in its place: many checkpoints, by key."""

    def introduce(self, key: str, entry: Any) -> None:
        """A checkpoint that requests may name from now on; harmless when repeated."""
        ...

    def pin(self, key: str, *, is_pinned: bool) -> None:
        """Keep a checkpoint on the device once it is there, or do not any more."""
        ...

    def unload(self, key: str) -> None:
        """Evict a checkpoint as soon as none of its sequences runs."""
        ...

    @property
    def residencies(self) -> Mapping[str, Residency]:
        """Where each checkpoint's weights are; a snapshot. In any thread."""
        ...
