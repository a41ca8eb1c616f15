"""What one worker process holds: the engine, the gRPC server, and the applications over them."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import bentoml
from starlette.applications import Starlette

from pythia_bento.errors import EngineUnavailable, PythiaError
from pythia_bento.runtime.backend import SWITCH_SECONDS
from pythia_bento.runtime.devices import for_service
from pythia_bento.runtime.progress import ProgressBars
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import loaded
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.bentoml.addresses import address_of
from pythia_bento.server.bentoml.socket_timeouts import set_socket_timeouts
from pythia_bento.server.bentoml.tracing import tracer_provider
from pythia_bento.server.drain import Drain
from pythia_bento.server.first_use import answer_nobody
from pythia_bento.server.giving_up import give_up
from pythia_bento.server.memory import Trimming
from pythia_bento.server.metrics import engine_metrics, loop_metrics
from pythia_bento.settings import Settings
from pythia_bento.telemetry.loop_watch import LoopWatch

if TYPE_CHECKING:
    from pythia_bento.server.grpc.server import GrpcServer

# Objects made, and collections of the young ones, until the next: an answer has a million objects
# that no collection can free, and looking at them all, often, would hold all threads each time.
GC_THRESHOLDS = (20_000, 5, 5)
PR_SET_PDEATHSIG = 1
SUPERVISOR_DIED = signal.SIGUSR2


class Worker:
    """Started and stopped by BentoML's hooks; ``apps`` find the runner in their state."""

    def __init__(
        self, settings: Settings, access: AccessControl, apps: Sequence[Starlette]
    ) -> None:
        self._settings, self._access, self._apps = for_service(settings), access, apps
        self._runner: PythiaRunner | None = None
        self._grpc: GrpcServer | None = None
        self._loop_watch = LoopWatch()
        self._trimming = Trimming(access.in_flight)
        for app in apps:
            app.state.check_ready = self.check_ready
            app.state.check_open = access.in_flight.check_open
        self._drain = Drain(access.in_flight, settings.drain_seconds)

    async def start(self) -> None:
        """Load the model and open gRPC's port; ends the process where that is impossible."""
        try:
            with ProgressBars() as bars:
                self._runner = await asyncio.to_thread(PythiaRunner.load, self._settings, bars)
            self._show(self._runner)
            await self._start_grpc(self._runner)
            await answer_nobody()
        except PythiaError as error:
            give_up(error.message)
        except (MemoryError, OSError, RuntimeError) as error:
            _give_up_without_memory(error)
            raise
        self._access.check_room = self._runner.check_room
        self._runner.start_watchdog()
        self._drain.install(self._is_draining, self._is_closed)
        _when_supervisor_dies(self._drain.begin)
        set_socket_timeouts(self._settings.client_timeout, self._ports())
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what lives now lives on: later collections need not look at it
        gc.set_threshold(*GC_THRESHOLDS)
        self._trimming.start()
        self._loop_watch.start()  # now that nobody waits any more for what stops the loop above

    async def stop(self) -> None:
        """End what is open and free the model."""
        self._show(None)
        self._trimming.stop()
        self._loop_watch.stop()
        if self._grpc is not None:
            await self._grpc.stop()
        if self._runner is not None:
            await asyncio.to_thread(self._runner.close)
            if self._runner.is_stuck:
                os._exit(1)  # all is answered, and Python would wait for the device

    @property
    def runner(self) -> PythiaRunner:
        """Raises EngineUnavailable before and after its time."""
        return loaded(self._runner)

    def check_ready(self) -> None:
        """Raise EngineUnavailable unless requests are taken and answered."""
        if self._drain.has_begun:
            raise EngineUnavailable("the server is shutting down")
        if error := self.runner.unready_reason:
            raise error

    def check_alive(self) -> None:
        """Raise EngineUnavailable when only a new process can help."""
        if self._runner is not None and (error := self._runner.stop_reason):
            raise error

    def metrics(self) -> str:
        """The engine's and gRPC's metrics in Prometheus' text format."""
        watch = self._loop_watch
        own = engine_metrics(self.runner, self._settings.metrics_prefix)
        own += loop_metrics(watch.longest, watch.longest_work)
        return own + (self._grpc.metrics() if self._grpc else "")

    def _ports(self) -> set[int] | None:
        """This service's; None in a process that is not a supervisor's and serves nothing else."""
        address = address_of(bentoml.server_context.service_name or "")
        if address is None:
            return None
        return {port for port in (address.port, self._settings.grpc_port) if port}

    def _show(self, runner: PythiaRunner | None) -> None:
        for app in self._apps:
            app.state.runner = runner

    def _is_draining(self) -> None:
        if self._runner is not None:
            self._runner.stay_down()
        if self._grpc is not None:
            self._grpc.say_not_serving()

    def _is_closed(self) -> None:
        if self._grpc is not None:
            self._grpc.end_unasked()

    async def _start_grpc(self, runner: PythiaRunner) -> None:
        if self._settings.grpc_port == 0:
            return
        # Imported here: only the process that serves needs it.
        from pythia_bento.server.grpc.server import GrpcServer

        self._grpc = GrpcServer(runner, self._settings, self._access, tracer_provider())
        await self._grpc.start()


def _give_up_without_memory(error: Exception) -> None:
    """A limit of the system's (``ulimit -v``, say) is not another one at the next start."""
    # Imported here: it brings torch, which the process that starts workers needs not.
    from pythia_bento.executor.out_of_memory import is_out_of_memory

    if is_out_of_memory(error):
        give_up(f"there is too little memory to start: {error}")


def _when_supervisor_dies(drain: Callable[[], None]) -> None:
    """Nobody could end us then or say how we are, and we hold its ports.

    Called in the main thread, which is the one that the supervisor started. Linux only. Not by
    SIGTERM: the kernel may send this signal once for each thread that the supervisor had, as they
    die one by one, and SIGTERM sent twice means to end at once.
    """
    if bentoml.server_context.worker_index and sys.platform == "linux":
        asyncio.get_running_loop().add_signal_handler(SUPERVISOR_DIED, drain)
        supervisor = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SUPERVISOR_DIED)
        if os.getppid() != supervisor:  # it has ended meanwhile
            drain()
