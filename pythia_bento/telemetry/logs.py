"""How log lines look: BentoML's text, or one JSON object a line (``PYTHIA_LOG_FORMAT``).

No line has prompts, texts or keys in it; see docs/observability.md for the fields. What comes from
clients, as a path does, is data in both: it can make neither a line nor a field of its own.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Literal

import orjson
from opentelemetry import trace

from pythia_bento.telemetry.calls import current_call

LogFormat = Literal["text", "json"]

_NOT_SHOWN = re.compile(r"[^\n -~]")  # of a record
_NOT_IN_VALUE = re.compile(r"[^!-~]|[\\=,]")


def fields_line(fields: Mapping[str, Any]) -> str:
    """``name=value`` for each, the items of lists after commas; all of it is printable ASCII.

    Other characters of a value, and backslashes, ``=``, commas and spaces, are Python's escapes.
    """
    return " ".join([f"{name}={_value(value)}" for name, value in fields.items()])


class TextFormatter(logging.Formatter):
    """Another formatter's records as printable ASCII; their further lines are indented."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """No line but the first looks like the beginning of a record."""
        return _NOT_SHOWN.sub(_escape, self._inner.format(record)).replace("\n", "\n    ")


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
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a lone surrogate, for which JSON has an escape and UTF-8 nothing
            return json.dumps(line, default=str)


def install(format: LogFormat) -> None:
    """For all handlers that this process has now; harmless when repeated."""
    if not logging.getLogger().handlers:  # in the engine's process
        logging.getLogger().addHandler(logging.StreamHandler())
    for name in ("", "bentoml", "uvicorn.error", "circus"):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(_formatter(format, handler.formatter))


def _formatter(format: LogFormat, present: logging.Formatter | None) -> logging.Formatter:
    if format == "json":
        return JsonFormatter()
    if isinstance(present, TextFormatter):
        return present
    return TextFormatter(present or logging.Formatter())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    text = str(value)
    return text if text.isalnum() and text.isascii() else _NOT_IN_VALUE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _ids() -> dict[str, Any]:
    found: dict[str, Any] = {}
    if call := current_call():
        found["request_id"] = call.request_id
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        found["trace_id"] = trace.format_trace_id(span.trace_id)
        found["span_id"] = trace.format_span_id(span.span_id)
    return found
