"""One checkpoint that a runner serves, and all that can be asked of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.outputs import SequenceOutput, collect, failure, raise_error
from pythia_bento.engine.params import Request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits, validate
from pythia_bento.errors import EngineUnavailable, InvalidRequest, PythiaError
from pythia_bento.model.config import ModelConfig
from pythia_bento.runtime.admission import Intake
from pythia_bento.runtime.arena import Arena, Region
from pythia_bento.runtime.captured import Captured, parts, placed, sizes
from pythia_bento.runtime.grammar_trials import GrammarTrials
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.runtime.streams import AsyncStream, SyncStream
from pythia_bento.runtime.thread import EngineThread
from pythia_bento.runtime.turns import Texts, TextThreads, Turns
from pythia_bento.settings import Settings
from pythia_bento.telemetry.calls import CallContext, Calls, by_call, current_call

_HIDDEN = "this server does not show the inside of its model"
_Stream = TypeVar("_Stream", AsyncStream, SyncStream)
_Runner = TypeVar("_Runner", bound="Served")


@dataclass(slots=True)
class Desk:
    """What all checkpoints of a runner share."""

    thread: EngineThread
    settings: Settings
    has_keys: bool  # as the settings say
    threads: TextThreads
    trials: GrammarTrials
    arena: Arena | None = None  # where captures go
    engines: int = 1
    """That have a device each."""
    find: Callable[[str], Awaitable[Served]] | None = None
    """The checkpoint of a name; see ``ServedModels.find``."""

    def account(self, caller: str | None, request: Hashable) -> Hashable:
        """Whose share of the queue it is; where nobody has a key, each request has its own."""
        return caller if self.has_keys else request


class Served:
    """One checkpoint. What its answers are depends on nothing else that is served."""

    def __init__(
        self,
        desk: Desk,
        info: ModelInfo,
        tokenizer: Tokenizer,
        limits: Limits,
        entry: ShelfEntry | None = None,
    ) -> None:
        """``entry`` is what the engine is to load for it; None of the one that it has anyway."""
        self.info = info
        self.tokenizer = tokenizer
        self.limits = limits
        self.settings = desk.settings
        self._desk, self._entry = desk, entry
        self._texts = Texts(tokenizer, limits, desk.threads)

    async def served(self, name: str | None) -> Served:
        """The checkpoint of a name, by any of its names; this one where there is none.

        Raises ModelNotFound, InvalidRequest for one of another shape, and CheckpointError.
        """
        if (call := current_call()) is not None:
            call.asked_model = name
        if name is None:
            return self
        assert self._desk.find is not None  # as the runner has set it
        return await self._desk.find(name)

    @property
    def arena(self) -> Arena | None:
        """Where captures of all checkpoints go; None where nothing can be captured."""
        return self._desk.arena

    @property
    def config(self) -> ModelConfig:
        """The model's; raises InvalidRequest where its inside cannot be asked for."""
        if self.limits.config is None:
            raise InvalidRequest(_HIDDEN)
        return self.limits.config

    def check_room(self, caller: str) -> None:
        """Raises Overloaded while no request of a caller would be taken, however small."""
        self._desk.thread.check_room(self._desk.account(caller, None))

    async def encode(self, prompt: str | Sequence[int], field: str = "prompt") -> tuple[int, ...]:
        """See Texts, here and below."""
        return await self._texts.encode(prompt, field)

    async def decode(self, ids: Sequence[int], field: str) -> str:
        """The text of token ids."""
        return await self._texts.decode(ids, field)

    async def starts(self, text: str) -> list[int]:
        """Where the tokens of a text begin."""
        return await self._texts.starts(text)

    async def make_ready(self, constraint: Constraint) -> None:
        """Compile what requests are to ask for; see ``GrammarTrials.check``."""
        await self._desk.trials.check(constraint)

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
        await self._check_all(requests)
        return await self._submit(requests, timeout, current_call())

    async def _check_all(self, requests: Sequence[Request]) -> None:
        turns = Turns()
        for request in requests:
            self.check(request)
            await turns.take()

    def submit_sync(self, requests: Sequence[Request]) -> SyncStream:
        """``submit`` for code without an event loop."""
        for request in requests:
            self.check(request)
        stream, intake = self._begin(SyncStream, requests, None, current_call())
        for request in requests:
            intake.add(request)
        self._desk.thread.submit(intake)
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

    async def capture(self, requests: Sequence[Request], timeout: float | None = None) -> Captured:
        """``complete``, and what the requests capture; close it soon.

        Their bytes are reserved first, all at once. Raises what ``submit`` raises, PayloadTooLarge
        for more than there can be, and DeadlineExceeded where they are not there in time.
        """
        await self._check_all(requests)
        if (arena := self._desk.arena) is None:
            raise InvalidRequest(_HIDDEN)
        began, nbytes = time.monotonic(), sizes(requests, self.config)
        seconds = self._seconds(timeout)
        region = await arena.reserve(sum(nbytes), seconds)
        try:
            requests = placed(requests, nbytes, region)
            left = seconds - (time.monotonic() - began)
            stream = await self._submit(requests, left, current_call(), region)
            try:
                outputs = collect(requests, await stream.all())
            finally:
                stream.close()
            return Captured(outputs, parts(nbytes, region), region)
        except BaseException:
            region.release()
            raise

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
        self,
        requests: Sequence[Request],
        timeout: float | None,
        call: CallContext | None,
        region: Region | None = None,
    ) -> AsyncStream:
        """Submit valid requests in the name of a call."""
        stream, intake = self._begin(AsyncStream, requests, timeout, call)
        intake.region = region
        turns = Turns()
        for request in requests:
            intake.add(request)
            await turns.take()
        self._desk.thread.submit(intake)
        stream.start()
        return stream

    def _seconds(self, timeout: float | None) -> float:
        longest = self.settings.request_timeout
        return longest if timeout is None else max(min(timeout, longest), 0)

    def _begin(
        self,
        kind: type[_Stream],
        requests: Sequence[Request],
        timeout: float | None,
        call: CallContext | None,
    ) -> tuple[_Stream, Intake]:
        seconds = self._seconds(timeout)
        stream = kind(requests, seconds, self._desk.thread.abort)
        if call is not None:
            call.model = self.info.id
        caller = (call and call.caller) or next((r.caller for r in requests), None)
        deadline = time.monotonic() + seconds
        account = self._desk.account(caller, stream)
        return stream, Intake(stream, call, account, deadline, self._entry)


def _scores(requests: Sequence[Request], outputs: list[SequenceOutput]) -> list[SequenceOutput]:
    return [score for [score] in collect(requests, outputs)]


def loaded(runner: _Runner | None) -> _Runner:
    """``runner`` itself; raises EngineUnavailable before and after its time."""
    if runner is None:
        raise EngineUnavailable("the model is not loaded")
    return runner
