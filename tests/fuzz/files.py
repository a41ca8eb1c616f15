"""Random files and hubs by the thousand, each kind in processes of its own.

usage: python -m tests.fuzz.files [--configs N] [--tokenizers N] [--locks N] [--origins N]
                                  [--tensors N] [--hubs N] [--computed N] [--seed N]

A case is a fault when anything but the project's own error of one sentence ends it, when something
outside of its folder changes, when what is read differs from what is there (``--computed``: from
what transformers computes), when it takes more than CASE_SECONDS of processor time or MEMORY, or
when a signal ends its process. Faults are printed with their seed: ``--seed N --configs 1`` is that
case again.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple

from tests.forkserver import CONTEXT

CASE_SECONDS = 20.0  # of a processor
MEMORY = 3 << 30  # bytes of a process, with torch
AT_ONCE = 2500  # cases of a process
MOST_FAULTS = 5
# Option -> module and function of ``case(draw, folder) -> outcome``.
KINDS = {
    "configs": ("documents", "config"),
    "tokenizers": ("documents", "tokenizer"),
    "locks": ("documents", "lock"),
    "origins": ("documents", "origin"),
    "tensors": ("tensor_files", "tensor_file"),
    "hubs": ("hub_stories", "story"),
    "computed": ("computed", "computed"),
}


class Result(NamedTuple):
    """What came of the cases of one kind."""

    outcomes: Counter[str]
    faults: list[str]
    megabytes: int  # the most that a process had


def run(kind: str, first: int, count: int) -> Result:
    """Cases of the seeds from ``first`` on."""
    total = Result(Counter(), [], 0)
    for start in range(first, first + count, AT_ONCE):
        part = _run_one(kind, start, min(AT_ONCE, first + count - start))
        total.outcomes.update(part.outcomes)
        total.faults.extend(part.faults)
        total = total._replace(megabytes=max(total.megabytes, part.megabytes))
    return total


def _run_one(kind: str, first: int, count: int) -> Result:
    """In one process, whose end by a signal is a fault of the case that it was at."""
    answers: SimpleQueue[Any] = CONTEXT.SimpleQueue()
    current = CONTEXT.Value("q", first)
    process = CONTEXT.Process(target=_work, args=(kind, first, count, current, answers))
    process.start()
    process.join()
    if process.exitcode:
        fault = f"{kind} {current.value}: the process ended with {process.exitcode}"
        return Result(Counter(), [fault], 0)
    return Result(*answers.get())


def _work(
    kind: str, first: int, count: int, current: Synchronized[int], answers: SimpleQueue[Any]
) -> None:
    faulthandler.enable()
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    module, function = KINDS[kind]
    case = getattr(importlib.import_module(f"tests.fuzz.{module}"), function)
    signal.signal(signal.SIGPROF, _too_long)
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            current.value = seed
            signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
            try:
                outcomes[case(random.Random(seed), Path(folder))] += 1
            except BaseException:  # also what a library of another language panics with
                faults.append(f"{kind} {seed}:\n{traceback.format_exc()[-3000:]}")
                if len(faults) == MOST_FAULTS:
                    break
        signal.setitimer(signal.ITIMER_PROF, 0)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if most > MEMORY:
        faults.append(f"{kind} {first} to {first + count}: {most >> 20} MiB")
    answers.put((outcomes, faults, most >> 20))
    sys.stdout.flush()
    os._exit(0)  # threads of an abandoned download may still wait


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {CASE_SECONDS} s of processor time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = False
    for kind in KINDS:
        if count := getattr(options, kind):
            result = run(kind, options.seed, count)
            told = ", ".join(f"{number} {name}" for name, number in sorted(result.outcomes.items()))
            cases = sum(result.outcomes.values()) + len(result.faults)
            print(f"{kind}: {cases} cases, {told}, {len(result.faults)} at fault")
            print(f"{result.megabytes} MiB at most")
            print("\n".join(result.faults), flush=True)
            failed |= bool(result.faults)
    sys.exit(failed)


if __name__ == "__main__":
    main()
