"""How log lines look: BentoML's text, or one JSON object a line (``PYTHIA_LOG_FORMAT``).

No line has prompts, texts or keys in it; see docs/observability.md for the fields.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

import orjson
from opentelemetry import trace

from pythia_bento.telemetry.calls import current_call

LogFormat = Literal["text", "json"]


class JsonFormatter(logging.Formatter):
    """A record with its call and its trace."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the record."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def install(format: LogFormat) -> None:
    """For all handlers that this process has now; ``text`` leaves their lines as they are."""
    if format == "text":
        return
    if not logging.getLogger().handlers:  # in the engine's process
        logging.getLogger().addHandler(logging.StreamHandler())
    formatter = JsonFormatter()
    for name in ("", "bentoml", "uvicorn.error", "circus"):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(formatter)


def _ids() -> dict[str, Any]:
    found: dict[str, Any] = {}
    if call := current_call():
        found["request_id"] = call.request_id
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        found["trace_id"] = trace.format_trace_id(span.trace_id)
        found["span_id"] = trace.format_span_id(span.span_id)
    return found
