"""What runs in a process of its own to find out whether a constraint can be compiled.

It imports little, as it begins anew for each: see ``grammar_trials``.
"""

from __future__ import annotations

import json
import resource
import sys
import threading

from pythia_bento.engine.grammars import BYTES, Constraint, compiled, make_tokenizer
from pythia_bento.errors import InvalidRequest

CPU_SECONDS = 2  # with those that Python takes to begin
MOST_BYTES = 2**30  # of address space
MOST_GROWTH = 2**25  # bytes that a grammar may take
STACK_BYTES = 2**22  # half of what threads have elsewhere


def main() -> None:
    """Read a constraint, write what is wrong with it; end otherwise than with 0 at a limit."""
    _limit(resource.RLIMIT_CPU, CPU_SECONDS)
    _limit(resource.RLIMIT_AS, MOST_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    constraint = Constraint(*json.load(sys.stdin))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_try, args=(constraint,))
    thread.start()
    thread.join()


def _try(constraint: Constraint) -> None:
    tokenizer, before = make_tokenizer(BYTES), _peak()
    reason = ""
    try:
        compiled(constraint, tokenizer)
        if _peak() - before > MOST_GROWTH:
            reason = constraint.refused(f"it takes more than {MOST_GROWTH >> 20} MiB").message
    except InvalidRequest as error:
        reason = error.message
    json.dump(reason, sys.stdout)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _peak() -> int:
    """Bytes that the process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
