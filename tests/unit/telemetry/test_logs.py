from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from pythia_bento.telemetry import logs
from pythia_bento.telemetry.calls import new_call, working_for


@pytest.fixture
def records() -> Iterator[list[str]]:
    """What a handler of the root writes, with the format that is installed."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(self.format(record))

    root, handler = logging.getLogger(), Handler()
    before = list(root.handlers)
    root.handlers[:] = [handler]
    yield found
    root.handlers[:] = before


def fail(logger: str, message: str = "it failed") -> None:
    try:
        raise ValueError("a reason")
    except ValueError:
        logging.getLogger(logger).exception(message)


def test_one_object_a_line(records: list[str]) -> None:
    logs.install("json")
    logging.getLogger("some.part").warning("two\nlines of %s", "text", extra={"fields": {"n": 1}})
    [line] = records
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "some.part",
        "message": "two\nlines of text",
        "n": 1,
    }


def test_call_trace_and_exception(records: list[str]) -> None:
    logs.install("json")
    tracer = TracerProvider().get_tracer("test")
    with working_for(new_call("me")), tracer.start_as_current_span("x") as span:
        fail("some.part")
    found = json.loads(records[0])
    context = span.get_span_context()
    assert found["request_id"] == "me"
    assert found["trace_id"] == format(context.trace_id, "032x")
    assert found["span_id"] == format(context.span_id, "016x")
    assert found["exception"].endswith("ValueError: a reason")


def test_text_leaves_lines_as_they_are(records: list[str]) -> None:
    logs.install("text")
    logging.getLogger("some.part").warning("plain")
    assert records == ["plain"]
