"""Whether constraints of clients can be compiled, tried where they can do no harm.

The library has limits, but some schemas make it compute for hours before it looks at them, and
nothing can end a thread. So each constraint is compiled in a process of its own first, which has
little time and memory; only those that pass are compiled where they are used.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

from pythia_bento.engine.grammars import Constraint, check_library
from pythia_bento.errors import InvalidRequest, Overloaded
from pythia_bento.runtime.grammar_trial_main import CPU_SECONDS, MOST_BYTES, main
from pythia_bento.runtime.thread import EngineThread

THREADS = 2
MOST_WAITING = 64  # constraints to be tried
MOST_KNOWN = 1024  # outcomes that are kept
WALL_SECONDS = 60.0  # on a machine that has no time for the process

_CODE = (  # whoever runs this may have found the package in ways of its own
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"from {main.__module__} import main; main()"
)


class GrammarTrials:
    """For event loops: tries each constraint once, then has the engine make it ready; close it."""

    def __init__(self, thread: EngineThread) -> None:
        self._engine = thread
        self._threads = ThreadPoolExecutor(THREADS, "pythia-grammar")
        self._outcomes: OrderedDict[Constraint, str] = OrderedDict()  # what is wrong with each
        self._waiting = 0

    def close(self) -> None:
        """Begin no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, constraint: Constraint) -> None:
        """Raises InvalidRequest or Overloaded; otherwise the engine has it ready."""
        check_library(constraint.field)
        if (reason := self._outcomes.get(constraint)) is None:
            reason = await self._try(constraint)
        if reason:
            raise InvalidRequest(reason, param=constraint.field)
        # Not on the threads of trials: what is known does not wait for what is not.
        await asyncio.to_thread(self._engine.prepare, constraint)

    async def _try(self, constraint: Constraint) -> str:
        if self._waiting >= MOST_WAITING:
            raise Overloaded(
                f"{constraint.field} is to be compiled after {self._waiting} others, which is the "
                "limit; try again later",
                param=constraint.field,
            )
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            reason = await loop.run_in_executor(self._threads, trial, constraint)
        finally:
            self._waiting -= 1
        self._outcomes[constraint] = reason
        if len(self._outcomes) > MOST_KNOWN:
            self._outcomes.popitem(last=False)
        return reason


def trial(constraint: Constraint) -> str:
    """What is wrong with a constraint; nothing where it can be compiled."""
    command = [sys.executable, "-c", _CODE, json.dumps(sys.path)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(astuple(constraint)).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WALL_SECONDS,
        )
        return str(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError):  # it was ended, or ended itself
        return constraint.refused(
            f"to compile it takes more than {CPU_SECONDS} s or {MOST_BYTES >> 30} GiB"
        ).message
