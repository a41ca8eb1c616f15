"""The line of log that a call leaves, of HTTP and gRPC in the same shape."""

from __future__ import annotations

import logging
import time
from typing import Any

from pythia_bento.telemetry.calls import CallContext
from pythia_bento.telemetry.logs import fields_line

logger = logging.getLogger("bentoml.access")  # the logger of BentoML's own lines


def log_call(
    call: CallContext,
    client: str,
    method: str,
    path: str,
    status: int | str,
    transport: str = "http",
) -> None:
    """Write the line of a call that has ended just now; for gRPC ``method`` is empty."""
    if not logger.isEnabledFor(logging.INFO):
        return
    fields = call_fields(call, client, method, path, status, transport)
    logger.info("%s", fields_line(fields), extra={"fields": fields | {"message": "call"}})


def call_fields(
    call: CallContext, client: str, method: str, path: str, status: int | str, transport: str
) -> dict[str, Any]:
    """In the order of the text line."""
    fields = {
        "transport": transport,
        "method": method,
        "path": path,
        "status": status,
        "duration_ms": round((time.monotonic() - call.began) * 1e3, 3),
        "client": client,
        "caller": call.caller,
        "request_id": call.request_id,
        **call.log_fields(),
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}
