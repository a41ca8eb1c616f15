"""PythiaRunner: one checkpoint on one device, asked from coroutines or from plain code."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from pythia_bento.catalog import nearest
from pythia_bento.engine.params import Request, SamplingParams, SequenceOutput
from pythia_bento.engine.validate import check_ids, validate
from pythia_bento.errors import EngineUnavailable, ModelNotFound
from pythia_bento.runtime.admission import Load
from pythia_bento.runtime.streams import AsyncStream, SyncStream
from pythia_bento.runtime.thread import EngineThread
from pythia_bento.runtime.watchdog import Watchdog
from pythia_bento.settings import Settings
from pythia_bento.telemetry.request_timings import RequestWatch
from pythia_bento.telemetry.scoped import Bound

if TYPE_CHECKING:
    from pythia_bento.engine.engine import Engine
    from pythia_bento.engine.stats import EngineStats
    from pythia_bento.engine.tokenizer import Tokenizer
    from pythia_bento.engine.validate import Limits
    from pythia_bento.runtime.process import EngineProcess

Progress = Callable[[str, int, int], None]  # what, done, total
_Stream = TypeVar("_Stream", AsyncStream, SyncStream)
Answer = SequenceOutput  # all deltas of one continuation, joined

_CALLER: ContextVar[str] = ContextVar("caller", default="anyone")


def as_caller(name: str) -> Bound[str]:
    """Submit requests in the name of a caller: callers take turns when the engine is full."""
    return Bound(_CALLER, name)


# Texts from here on are tokenised off the event loop: this many characters take about 1 ms.
LONG_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which bytes answer, and by what arithmetic."""

    commit: str | None  # 40 hex digits; None for a local directory
    files: dict[str, str]  # name -> sha256
    weights_sha256: str  # over the names and hashes of ``files``
    quantization: str
    dtype: str  # of the weights
    matmul: str
    backend: str
    batch_invariant: bool
    version: str  # of this package
    same_weights: tuple[str, ...] = ()  # other branches that hold the same weights


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served, as clients see it."""

    id: str
    aliases: tuple[str, ...] = ()
    fingerprint: str = ""  # names weights, code and arithmetic: equal ones give equal bits
    created: int = 0  # Unix time
    provenance: Provenance | None = None


class PythiaRunner:
    """Answers requests for one model. Close it, or use it as a context manager."""

    def __init__(self, engine: Engine | EngineProcess, info: ModelInfo, settings: Settings) -> None:
        """Start the engine's thread."""
        self.info = info
        self.settings = settings
        self.tokenizer: Tokenizer = engine.tokenizer
        engine.limits = limits_of(engine, settings)
        self.limits: Limits = engine.limits
        self._thread = EngineThread(
            engine,
            Load(
                settings.max_batch_size + settings.max_queue,
                self.limits.cache_tokens + settings.max_queue_tokens,
            ),
        )

    @classmethod
    def load(cls, settings: Settings, on_progress: Progress | None = None) -> PythiaRunner:
        """Load the checkpoint and answer a first request.

        Raises CheckpointError, ModelNotFound or SettingsError.
        """
        runner = cls(*_load(settings, on_progress or (lambda what, done, total: None)), settings)
        try:
            warm_up = Request(new_request_id(), (0,), SamplingParams(max_tokens=1))
            for answer in runner.complete_sync([warm_up])[0]:
                raise_error(answer)
        except BaseException:
            runner.close()
            raise
        return runner

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken: loaded, the engine's thread alive, not closing."""
        return self._thread.is_alive

    @property
    def end(self) -> EngineUnavailable | None:
        """Why that is over."""
        return self._thread.end

    @property
    def hangs(self) -> bool:
        """Whether the engine was given up in the middle of a step: the process cannot end well."""
        return self._thread.hangs

    def end_hangs(self) -> None:
        """From now on an engine that makes no step for ``stall_seconds`` counts as dead."""
        if self.settings.stall_seconds:
            Watchdog(self._thread, self.settings.stall_seconds).start()

    @property
    def ended(self) -> Future[None]:
        """Done when no request is taken any more and all are answered."""
        return self._thread.ended

    @property
    def watch(self) -> RequestWatch:
        """What became of requests, and when."""
        return self._thread.watch

    def stats(self) -> EngineStats:
        """Gauges and counters of the engine."""
        return self._thread.stats()

    def close(self) -> None:
        """End open requests with EngineUnavailable, free the model; harmless when repeated."""
        self._thread.close()

    def __enter__(self) -> PythiaRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check_model(self, name: str | None) -> None:
        """Raise ModelNotFound unless ``name`` is what is served, by any of its names."""
        names = (self.info.id, *self.info.aliases)
        if name is None or name in names:
            return
        hint = f"the nearest names are {', '.join(nearest(name, names))}"
        raise ModelNotFound(
            f"model {name[:100]!r} is not served here; {hint}",
            param="model",
        )

    def check_room(self) -> None:
        """Raises Overloaded while no request at all would be taken, however small."""
        self._thread.check_room()

    async def encode(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """Token ids of a prompt; raises InvalidRequest on lone surrogates."""
        if not isinstance(prompt, str):
            return tuple(prompt)
        if len(prompt) < LONG_TEXT:
            return tuple(self.tokenizer.encode(prompt))
        return tuple(await asyncio.to_thread(self.tokenizer.encode, prompt))

    async def decode(self, ids: Sequence[int], field: str) -> str:
        """The text of token ids; raises InvalidRequest, naming ``field``, on ids without token."""
        check_ids(field, ids, self.limits)
        if len(ids) < LONG_TEXT:
            return self.tokenizer.decode(ids)
        return await asyncio.to_thread(self.tokenizer.decode, ids)

    def submit(self, requests: Sequence[Request], timeout: float | None = None) -> AsyncStream:
        """Queue requests, all or none; read the stream in this event loop and close it.

        ``timeout`` in seconds holds where it is shorter than the setting's.
        Raises InvalidRequest, ContextLengthExceeded, Overloaded or EngineUnavailable.
        """
        return self._submit(requests, AsyncStream, timeout)

    def submit_sync(self, requests: Sequence[Request]) -> SyncStream:
        """``submit`` for code without an event loop."""
        return self._submit(requests, SyncStream)

    async def generate(self, request: Request) -> AsyncIterator[SequenceOutput]:
        """The deltas of one request; closing the generator ends the request.

        Raises what ended a sequence, besides what ``submit`` raises.
        """
        stream = self.submit([request])
        try:
            async for outputs in stream:
                for output in outputs:
                    yield raise_error(output)
        finally:
            stream.close()

    async def complete(
        self, requests: Sequence[Request], timeout: float | None = None, *, validated: bool = False
    ) -> list[list[Answer]]:
        """The ``n`` answers of each request; errors are answers with ``error`` set.

        ``validated`` requests have passed ``engine.validate`` with this runner's limits.
        """
        stream = self._submit(requests, AsyncStream, timeout, validated)
        try:
            return collect(requests, await stream.all())
        finally:
            stream.close()

    def complete_sync(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """``complete`` for code without an event loop."""
        stream = self.submit_sync(requests)
        try:
            return collect(requests, (o for outputs in stream for o in outputs))
        finally:
            stream.close()

    async def score(self, prompts: Sequence[tuple[int, ...]], top: int = 1) -> list[Answer]:
        """Log-probabilities of every token but the first of each prompt; see ``complete``."""
        answers = await self.complete([score_request(prompt, top) for prompt in prompts])
        return [answer for (answer,) in answers]

    def score_sync(self, prompts: Sequence[tuple[int, ...]], top: int = 1) -> list[Answer]:
        """``score`` for code without an event loop."""
        answers = self.complete_sync([score_request(prompt, top) for prompt in prompts])
        return [answer for (answer,) in answers]

    def _submit(
        self,
        requests: Sequence[Request],
        kind: type[_Stream],
        timeout: float | None = None,
        validated: bool = False,
    ) -> _Stream:
        if not validated:
            for request in requests:
                validate(request, self.limits)
        longest = self.settings.request_timeout
        seconds = longest if timeout is None else max(min(timeout, longest), 0)
        caller, deadline = _CALLER.get(), time.monotonic() + seconds
        requests = [replace(request, caller=caller, deadline=deadline) for request in requests]
        stream = kind(requests, seconds, self._thread.abort)
        self._thread.submit(requests, stream)
        stream.start()
        return stream


def _load(settings: Settings, on_progress: Progress) -> tuple[Engine | EngineProcess, ModelInfo]:
    # Imported here: they bring torch.
    if settings.engine_process:
        from pythia_bento.runtime.process import EngineProcess

        process = EngineProcess(settings, on_progress)
        return process, process.info
    from pythia_bento.runtime.loading import load_engine

    return load_engine(settings, on_progress)


def limits_of(engine: Engine | EngineProcess, settings: Settings) -> Limits:
    """What the model can do, and what the settings allow."""
    limits = engine.limits
    return replace(
        limits,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_n=settings.max_n,
        max_sequences=settings.max_sequences,
        # There are no more alternatives than rows of the head; ids without a token have one.
        max_logprobs=min(settings.max_logprobs, limits.num_tokens),
        max_stop=settings.max_stop,
    )


def score_request(prompt: tuple[int, ...], top: int = 1) -> Request:
    """A request that generates nothing: log-probabilities of ``prompt[1:]``, ``top`` best each."""
    return Request(new_request_id(), prompt, _score_params(top))


@functools.lru_cache(maxsize=32)  # there are few, they never change, and making one takes 3 us
def _score_params(top: int) -> SamplingParams:
    return SamplingParams(max_tokens=0, prompt_logprobs=top)


# Not the system's: a request id is no secret, and asking the system takes longer than a token.
_IDS = random.Random()


def new_request_id() -> str:
    """Unique in this process, and unlikely elsewhere."""
    return f"{_IDS.getrandbits(128):032x}"


def collect(requests: Sequence[Request], deltas: Iterable[SequenceOutput]) -> list[list[Answer]]:
    """Join deltas: for each request its ``n`` answers in order."""
    answers: dict[tuple[str, int], Answer] = {}
    for delta in deltas:
        key = (delta.request_id, delta.index)
        if key in answers:
            answers[key].extend(delta)
        else:
            answers[key] = delta
    return [[answers[r.request_id, index] for index in range(r.n)] for r in requests]


def raise_error(output: SequenceOutput) -> SequenceOutput:
    """``output`` itself, unless an error or the server ended the sequence."""
    if output.error is not None:
        raise output.error
    if output.finish_reason == "abort":
        raise EngineUnavailable("the server ended the request")
    return output
