"""PythiaRunner: one checkpoint on one device, asked from coroutines or from plain code."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Hashable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from pythia_bento.catalog import nearest
from pythia_bento.engine.outputs import SequenceOutput, collect, failure, raise_error
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.engine.stats import EngineStats
from pythia_bento.engine.validate import validate
from pythia_bento.errors import EngineUnavailable, ModelNotFound, PythiaError
from pythia_bento.runtime.admission import AdmissionControl, Demand
from pythia_bento.runtime.backend import Backend
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.runtime.streams import AsyncStream, SyncStream
from pythia_bento.runtime.thread import EngineThread, Intake
from pythia_bento.runtime.turns import Texts, Turns
from pythia_bento.runtime.watchdog import Watchdog
from pythia_bento.settings import Settings
from pythia_bento.telemetry.calls import CallContext, Calls, by_call, current_call
from pythia_bento.telemetry.request_timings import RequestWatch

_Stream = TypeVar("_Stream", AsyncStream, SyncStream)


class PythiaRunner:
    """Answers requests for one model. Close it, or use it as a context manager."""

    def __init__(self, engine: Backend, info: ModelInfo, settings: Settings) -> None:
        """Start the engine's thread."""
        self.info = info
        self.settings = settings
        self.tokenizer = engine.tokenizer
        self.limits = engine.limits
        most = Demand(
            self.limits.max_batch_size + settings.max_queue,
            self.limits.cache_tokens + settings.max_queue_tokens,
        )
        self._has_keys = (settings.api_keys, settings.api_keys_file) != (None, None)
        admission = AdmissionControl(most, share=settings.caller_share)
        self._thread = EngineThread(engine, admission)
        self._texts = Texts(self.tokenizer, self.limits)

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
    def stop_reason(self) -> EngineUnavailable | None:
        """Why no requests are taken any more; None while they are."""
        return self._thread.stop_reason

    @property
    def is_stuck(self) -> bool:
        """Whether the engine was given up in the middle of a step: the process cannot end well."""
        return self._thread.is_stuck

    def start_watchdog(self) -> None:
        """From now on an engine that makes no step for ``stall_seconds`` counts as dead."""
        if self.settings.stall_seconds:
            Watchdog(self._thread, self.settings.stall_seconds).start()

    @property
    def stopped(self) -> Future[None]:
        """Done when no request is taken any more and all are answered."""
        return self._thread.stopped

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
        self._texts.close()

    def __enter__(self) -> PythiaRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check_model(self, name: str | None) -> None:
        """Raise ModelNotFound unless ``name`` is what is served, by any of its names."""
        names = (self.info.id, *self.info.aliases)
        if name is None or name in names:
            if (call := current_call()) is not None:
                call.asked_model = name
            return
        # Each is there with and without its owner: only those of the asker's form.
        alike = [known for known in names if ("/" in known) == ("/" in name)]
        hint = f"the nearest names are {', '.join(nearest(name, alike or names))}"
        raise ModelNotFound(
            f"model {name[:100]!r} is not served here; {hint}",
            param="model",
        )

    def check_room(self, caller: str) -> None:
        """Raises Overloaded while no request of a caller would be taken, however small."""
        self._thread.check_room(self._account(caller, None))

    async def encode(self, prompt: str | Sequence[int], field: str = "prompt") -> tuple[int, ...]:
        """See Texts, here and below."""
        return await self._texts.encode(prompt, field)

    async def decode(self, ids: Sequence[int], field: str) -> str:
        """The text of token ids."""
        return await self._texts.decode(ids, field)

    async def starts(self, text: str) -> list[int]:
        """Where the tokens of a text begin."""
        return await self._texts.starts(text)

    def check(self, request: Request) -> None:
        """Raise InvalidRequest or ContextLengthExceeded for what can never succeed."""
        validate(request, self.limits)

    async def submit(
        self, requests: Sequence[Request], timeout: float | None = None
    ) -> AsyncStream:
        """Queue requests, all or none; read the stream in this event loop and close it.

        ``timeout`` in seconds holds where it is shorter than the setting's.
        Raises InvalidRequest, ContextLengthExceeded, Overloaded or EngineUnavailable.
        """
        turns = Turns()
        for request in requests:
            self.check(request)
            await turns.take()
        return await self._submit(requests, timeout, current_call())

    def submit_sync(self, requests: Sequence[Request]) -> SyncStream:
        """``submit`` for code without an event loop."""
        for request in requests:
            self.check(request)
        stream, intake = self._begin(SyncStream, requests, None, current_call())
        for request in requests:
            intake.add(request)
        self._thread.submit(intake)
        stream.start()
        return stream

    async def generate(self, request: Request) -> AsyncIterator[SequenceOutput]:
        """The deltas of one request; closing the generator ends the request.

        Raises what ended a sequence, besides what ``submit`` raises.
        """
        stream = await self.submit([request])
        try:
            async for outputs in stream:
                for output in outputs:
                    yield raise_error(output)
        finally:
            stream.close()

    async def complete(
        self, requests: Sequence[Request], timeout: float | None = None
    ) -> list[list[SequenceOutput]]:
        """The ``n`` continuations of each request; an error that ended one is its ``error``.

        Raises what ``submit`` raises.
        """
        stream = await self.submit(requests, timeout)
        try:
            return collect(requests, await stream.all())
        finally:
            stream.close()

    def complete_sync(self, requests: Sequence[Request]) -> list[list[SequenceOutput]]:
        """``complete`` for code without an event loop."""
        stream = self.submit_sync(requests)
        try:
            return collect(requests, (o for outputs in stream for o in outputs))
        finally:
            stream.close()

    async def score(
        self, requests: Sequence[Request], timeout: float | None = None, calls: Calls | None = None
    ) -> list[SequenceOutput]:
        """The score of each of ``score_request``'s requests, perhaps of several ``calls``.

        Raises nothing: whatever is wrong with one, or with all, is the ``error`` of its own answer.
        """
        calls = calls or dict.fromkeys((r.request_id for r in requests), current_call())
        done = await self._refused(requests)
        bad = {output.request_id for output in done}
        good = [request for request in requests if request.request_id not in bad]
        streams: list[AsyncStream] = []
        try:
            for call, group in by_call(good, calls):
                try:
                    streams.append(await self._submit(group, timeout, call))
                except PythiaError as error:  # the server, or this caller's share of it, is full
                    done += [failure(r.request_id, 0, error) for r in group]
            for stream in streams:
                done += await stream.all()
        finally:
            for stream in streams:
                stream.close()
        return _scores(requests, done)

    async def _refused(self, requests: Sequence[Request]) -> list[SequenceOutput]:
        turns, refused = Turns(), []
        for request in requests:
            try:
                self.check(request)
            except PythiaError as error:
                refused.append(failure(request.request_id, 0, error))
            await turns.take()
        return refused

    async def _submit(
        self, requests: Sequence[Request], timeout: float | None, call: CallContext | None
    ) -> AsyncStream:
        """Submit valid requests in the name of a call."""
        stream, intake = self._begin(AsyncStream, requests, timeout, call)
        turns = Turns()
        for request in requests:
            intake.add(request)
            await turns.take()
        self._thread.submit(intake)
        stream.start()
        return stream

    def _begin(
        self,
        kind: type[_Stream],
        requests: Sequence[Request],
        timeout: float | None,
        call: CallContext | None,
    ) -> tuple[_Stream, Intake]:
        longest = self.settings.request_timeout
        seconds = longest if timeout is None else max(min(timeout, longest), 0)
        stream = kind(requests, seconds, self._thread.abort)
        if call is not None:
            call.model = self.info.id
        caller = (call and call.caller) or next((r.caller for r in requests), None)
        deadline = time.monotonic() + seconds
        return stream, Intake(stream, call, self._account(caller, stream), deadline)

    def _account(self, caller: str | None, request: Hashable) -> Hashable:
        """Whose share of the queue it is; where nobody has a key, each request has its own."""
        return caller if self._has_keys else request


def loaded(runner: PythiaRunner | None) -> PythiaRunner:
    """``runner`` itself; raises EngineUnavailable before and after its time."""
    if runner is None:
        raise EngineUnavailable("the model is not loaded")
    return runner


def _scores(requests: Sequence[Request], outputs: list[SequenceOutput]) -> list[SequenceOutput]:
    return [score for [score] in collect(requests, outputs)]


def _load(settings: Settings, on_progress: Progress) -> tuple[Backend, ModelInfo]:
    # Imported here: they bring torch.
    if settings.engine_process:
        from pythia_bento.runtime.process import EngineProcess

        process = EngineProcess(settings, on_progress)
        return process, process.info
    from pythia_bento.runtime.loading import load_engine

    return load_engine(settings, on_progress)
