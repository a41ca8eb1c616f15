"""PythiaRunner: checkpoints on their devices, asked from coroutines or from plain code."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress

from pythia_bento.checkpoints.shelf import Shelf
from pythia_bento.engine.outputs import raise_error
from pythia_bento.engine.stats import EngineStats
from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.admission import AdmissionControl, Demand
from pythia_bento.runtime.arena import Arena, SharedMemory
from pythia_bento.runtime.backend import Backend, GiveUp
from pythia_bento.runtime.devices import Device, devices_of
from pythia_bento.runtime.grammar_trials import GrammarTrials
from pythia_bento.runtime.importing import without_collections
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.runtime.pool.place import ReplicaState
from pythia_bento.runtime.pool.pool import EnginePool, nobody_left
from pythia_bento.runtime.served import Desk, Served
from pythia_bento.runtime.served_models import ServedModels, shelf_of, warm_up
from pythia_bento.runtime.thread import EngineThread
from pythia_bento.runtime.turns import TextThreads
from pythia_bento.runtime.watchdog import Watchdog
from pythia_bento.settings import Settings
from pythia_bento.telemetry.request_timings import RequestWatch


class PythiaRunner(Served):
    """Answers requests for the checkpoint ``PYTHIA_MODEL``, and ``served`` those for others.

    Close it, or use it as a context manager.
    """

    def __init__(
        self,
        engine: Backend,
        info: ModelInfo,
        settings: Settings,
        shelf: Shelf | None = None,
        memory: SharedMemory | None = None,
    ) -> None:
        """Start the engine's thread. With a ``shelf`` the engine is a ``ShelfBackend``.

        ``memory`` is what the engine captures to; without it nothing can be captured.
        """
        limits, self._pool = engine.limits, engine if isinstance(engine, EnginePool) else None
        engines = len(self._pool or (engine,))
        on_devices = Demand(limits.max_batch_size, limits.cache_tokens) * engines
        most = on_devices + Demand(settings.max_queue, settings.max_queue_tokens)
        admission = AdmissionControl(most, share=settings.caller_share)
        self._thread = EngineThread(engine, admission)
        if self._pool is not None:
            self._pool.keep(self._wake)
        trials = GrammarTrials(self._thread)
        arena = None if memory is None else Arena(memory)
        threads = TextThreads()
        desk = Desk(self._thread, settings, settings.has_keys, threads, trials, arena, engines)
        super().__init__(desk, info, engine.tokenizer, limits)
        self.models = ServedModels(self, self._desk, shelf)
        self._desk.find = self.models.find

    @classmethod
    def load(cls, settings: Settings, on_progress: Progress | None = None) -> PythiaRunner:
        """Load the checkpoint, and others that are pinned, and answer a first request of each.

        Raises CheckpointError, ModelNotFound or SettingsError.
        """
        memory = SharedMemory(settings.capture_bytes)
        engine, info = _load(settings, on_progress or (lambda what, done, total: None), memory)
        memory.keeps_pages = info.is_on_gpu
        runner = cls(engine, info, settings, shelf_of(settings, info.checkpoint), memory)
        try:
            for served in runner.models.pinned():
                for answer in served.complete_sync([warm_up()])[0]:
                    raise_error(answer)
        except BaseException:
            runner.close()
            raise
        return runner

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken: loaded, the engine's thread alive, not closing."""
        return self.unready_reason is None

    @property
    def stop_reason(self) -> EngineUnavailable | None:
        """Why no requests are taken any more; None while they are."""
        return self._thread.stop_reason

    @property
    def unready_reason(self) -> EngineUnavailable | None:
        """Why none are taken now, where that may pass, too."""
        is_silent = self._pool is not None and self._pool.is_silent
        return self.stop_reason or (nobody_left() if is_silent else None)

    @property
    def is_stuck(self) -> bool:
        """Whether the engine was given up in the middle of a step: the process cannot end well."""
        return self._thread.is_stuck

    def start_watchdog(self) -> None:
        """From now on an engine that makes no step for ``stall_seconds`` counts as dead."""
        if (seconds := self.settings.stall_seconds) == 0:
            return
        if self._pool is None:
            Watchdog(self._thread, seconds).start()
        else:
            self._pool.watch(seconds)

    def stay_down(self) -> None:
        """From now on an engine that ends is not started anew."""
        if self._pool is not None:
            self._pool.stay_down()

    @property
    def replicas(self) -> list[ReplicaState]:
        """Of ``PYTHIA_DEVICES``, or the one that there is."""
        if self._pool is not None:
            return self._pool.states()
        name = "cuda:0" if self.info.is_on_gpu else "cpu:0"
        return [ReplicaState(name, self.is_ready, self.stats())]

    @property
    def repeats(self) -> int:
        """Requests that were asked once more, as the engine that had them ended."""
        return self._pool.repeats if self._pool is not None else 0

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
        self._desk.threads.close()
        self._desk.trials.close()
        if self.arena is not None:
            self.arena.close()

    def _wake(self) -> None:
        with suppress(EngineUnavailable):
            self._thread.order(lambda engine: None)

    def __enter__(self) -> PythiaRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _load(
    settings: Settings, on_progress: Progress, memory: SharedMemory
) -> tuple[Backend, ModelInfo]:
    # Imported here: they bring torch.
    if settings.devices is not None:
        pool = _pool(settings, on_progress, memory)
        return pool, pool.info
    if settings.engine_process:
        with without_collections():
            from pythia_bento.runtime.process import EngineProcess

        process = EngineProcess(settings, on_progress, memory=memory)
        return process, process.info
    with without_collections():
        from pythia_bento.runtime.loading import load_engine

    engine, info = load_engine(settings, on_progress)
    engine.lend(memory.array)
    return engine, info


def _pool(settings: Settings, on_progress: Progress, memory: SharedMemory) -> EnginePool:
    with without_collections():
        from pythia_bento.runtime.process import EngineProcess

    def start(device: Device, on_progress: Progress, give_up: GiveUp) -> EngineProcess:
        its = device.settings(settings)
        return EngineProcess(its, on_progress, memory=memory, device=device, give_up=give_up)

    return EnginePool(devices_of(settings), start, on_progress)
