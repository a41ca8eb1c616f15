from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    others = {one: one.formatter for one in root.handlers}  # pytest's
    root.addHandler(handler)
    yield found
    root.removeHandler(handler)
    for one, formatter in others.items():
        one.setFormatter(formatter)


def fail(logger: str, message: str = "it failed") -> None:
    try:
        raise ValueError("a reason")
    except ValueError:
        logging.getLogger(logger).exception(message)


def test_one_object_a_line(records: list[str]) -> None:
    logs.install("json")
    logging.getLogger("some.part").warning("two\nlines of %s", "text", extra={"fields": {"n": 1}})
    logging.getLogger("some.part").warning("a\ud800\n")
    [line, sharp] = records
    assert "\n" not in sharp and json.loads(sharp)["message"] == "a\ud800\n"
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


def test_text_leaves_plain_lines_as_they_are(records: list[str]) -> None:
    logs.install("text")
    logs.install("text")
    logging.getLogger("some.part").warning("plain: a\\b, 1 = 1")
    assert records == ["plain: a\\b, 1 = 1"]


def test_no_message_forges_a_record(records: list[str]) -> None:
    logs.install("text")
    fail("some.part", "of \x1b[2J\r\u202e\x9b\u2028\ud800 or\n2026-11-29 [INFO] forged")
    first, second, *others = records[0].split("\n")
    assert first == r"of \x1b[2J\x0d\u202e\x9b\u2028\ud800 or"
    assert second == "    2026-11-29 [INFO] forged"
    assert others[-1] == "    ValueError: a reason"
    assert all(line.startswith("    ") for line in others)


def parsed(line: str) -> dict[str, str | list[str]]:
    """What ``fields_line`` was given; a comma is only in lists of several."""
    fields: dict[str, str | list[str]] = {}
    for field in line.split(" "):
        name, separator, value = field.partition("=")
        assert separator and name not in fields and "=" not in value
        items = [item.encode().decode("unicode_escape") for item in value.split(",")]
        fields[name] = items if len(items) > 1 else items[0]
    return fields


SHARP = "\n\r\x00\x08\x1b\x7f\x85\x9b\u2028\u202e\u2066\ufeff\ud800 =,\\\"'"
VALUES = st.text(st.sampled_from(SHARP) | st.characters(exclude_categories=()))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]+", fullmatch=True),
        VALUES | st.lists(VALUES, min_size=2),
        min_size=1,
    )
)
def test_fields_are_what_they_were_whatever_is_in_them(fields: dict[str, Any]) -> None:
    line = logs.fields_line(fields)
    assert line.isascii() and line.isprintable()
    assert parsed(line) == fields


def test_fields_stay_readable() -> None:
    fields = {"path": "/v1/models/a@b:c", "status": 200, "ms": 1.5, "reasons": ["length", "stop"]}
    assert logs.fields_line(fields) == "path=/v1/models/a@b:c status=200 ms=1.5 reasons=length,stop"
