"""What metrics, ids and log lines cost the serving process: ``python -m bench.serving.watch``.

Microseconds for a token, in steps of 64 sequences, and for a call: our id, spans (not sampled) and
line, beside the line of BentoML that ours replaces. Medians of some rounds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from bentoml._internal.server.http.access import AccessLogMiddleware

from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.server.bentoml.access_log import AccessLog
from pythia_bento.server.bentoml.tracing import Calls
from pythia_bento.telemetry.request_timings import RequestTimings, RequestWatch

SEQUENCES, STEPS, CALLS, ROUNDS = 64, 1000, 2000, 9


def main() -> None:
    """Print the figures."""
    print(f"a token: {_median(_tokens) / SEQUENCES / STEPS:.2f} us")
    _log_to_nowhere()
    bentoml = AccessLogMiddleware(_app, True, True, True, True)
    ours = Calls(AccessLog(_app))
    for name, middleware in (("BentoML's line", bentoml), ("ours", ours)):
        taken = _median(lambda served=middleware: asyncio.run(_calls(served)))
        print(f"a call, {name}: {taken / CALLS:.0f} us")


def _median(measured: Callable[[], Any]) -> float:
    """Microseconds of processor time."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        measured()
        taken.append(time.process_time() - start)
    return statistics.median(taken) * 1e6


def _tokens() -> None:
    watch = RequestWatch()
    requests = [Request(str(number), (1,)) for number in range(SEQUENCES)]
    outputs = [SequenceOutput(request.request_id, 0, [1], "") for request in requests]
    timings = [RequestTimings(request) for request in requests]
    for _ in range(STEPS):
        watch.on_outputs(list(zip(timings, outputs, strict=True)))


async def _calls(served: Any) -> None:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "scheme": "http", "method": "POST", "path": "/v1/completions"}
    for _ in range(CALLS):
        await served({**scope, "headers": headers, "client": ("127.0.0.1", 1)}, None, _send)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _send(message: Any) -> None: ...


def _log_to_nowhere() -> None:
    logger = logging.getLogger("bentoml.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(open(os.devnull, "w")))  # noqa: SIM115


if __name__ == "__main__":
    main()
