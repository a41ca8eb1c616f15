"""What stops ``bentoml serve`` outside of our code: a sentence instead of a traceback.

The process that watches over the workers binds the port of HTTP, and lets the system's error end
it. It has imported the service before, so the last word can be ours.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]
_WHY = {
    errno.EADDRINUSE: "is taken by another program",
    errno.EADDRNOTAVAIL: "is no address of this machine",
    errno.EACCES: "is for root only",
}


def install() -> None:
    """Only in BentoML's own command: a program that imports the service has its own last words."""
    command = Path(sys.argv[0])
    if command.name == "bentoml" or command.parts[-2:] == ("bentoml", "__main__.py"):
        sys.excepthook = partial(last_words, sys.excepthook)


def last_words(
    before: Hook, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """One line for an address that cannot be had; all else as ``before``."""
    why = _WHY.get(error.errno or 0) if isinstance(error, OSError) else None
    if why is None or error.filename is not None:  # type: ignore[attr-defined]
        before(kind, error, trace)
        return
    print(
        f"pythia-bento: the address to serve HTTP on {why}; name another with --port and --host",
        file=sys.stderr,
    )
