"""The end of a worker that can never serve."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import bentoml


def give_up(message: str) -> NoReturn:
    """Say why. Under ``bentoml serve`` end the supervisor too: it would start us for ever."""
    with suppress(OSError):  # no room for it
        print(f"pythia-bento: {message}", file=sys.stderr, flush=True)
    if bentoml.server_context.worker_index:
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(1)
    raise SystemExit(1)
