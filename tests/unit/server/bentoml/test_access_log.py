from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.bentoml import access_log
from pythia_bento.telemetry.calls import new_call, working_for
from tests.unit.server.bentoml.test_tracing import Traced, documented

SECRET = "a prompt that nobody may read"


@pytest.fixture(autouse=True)
def _logs(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "bentoml.access")


async def test_a_line_has_what_the_document_says(runner: PythiaRunner, caplog: Any) -> None:
    response = await Traced(runner).post(prompt=SECRET, max_tokens=4, id="me")
    [record] = caplog.records
    fields = record.fields
    assert set(fields) - {"message"} == documented("Field")
    assert fields["first_output_ms"] <= fields["duration_ms"]
    shown = {name: fields[name] for name in ("transport", "method", "path", "status", "caller")}
    assert shown == {
        "transport": "http",
        "method": "POST",
        "path": "/v1/completions",
        "status": 200,
        "caller": "anyone",
    }
    usage = response.json()["usage"]
    assert fields["prompt_tokens"] == usage["prompt_tokens"]
    assert fields["generated_tokens"] == usage["completion_tokens"] == 4
    text = record.getMessage()
    assert re.match(
        r"transport=http method=POST path=/v1/completions status=200 duration_ms=", text
    )
    assert "finish_reasons=length" in text
    assert "nobody" not in text + repr(record.__dict__)


async def test_a_query_is_not_logged_and_a_path_only_in_part(
    runner: PythiaRunner, caplog: Any
) -> None:
    await Traced(runner).post(f"/{'x' * 500}?key=secret")
    [record] = caplog.records
    assert record.fields["path"] == "/" + "x" * (access_log.MAX_PATH - 1)
    assert record.fields["status"] == 404


async def test_paths_that_are_skipped(runner: PythiaRunner, caplog: Any) -> None:
    response = await Traced(runner).post("/livez", id="me")
    assert response.headers["x-request-id"] == "me"
    assert caplog.records == []


async def test_an_exception_is_logged_as_what_it_will_be(caplog: Any) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a bug")

    with working_for(new_call("me")), pytest.raises(RuntimeError):
        scope = {"type": "http", "method": "GET", "path": "/a"}
        await access_log.AccessLog(broken)(scope, None, None)  # type: ignore[arg-type]
    [record] = caplog.records
    assert record.fields["status"] == 500


@pytest.mark.parametrize(
    "path",
    [
        "/x%0A2026-11-29T01:02:03+0000 [INFO] [cli] transport=http method=POST caller=bob",
        "/x%20status=200%20caller=alice",
        "/x%0d%1b[2J%08%e2%80%ae%e2%80%a8%c2%85",
    ],
)
async def test_a_path_is_one_value_whatever_is_in_it(
    runner: PythiaRunner, caplog: Any, path: str
) -> None:
    await Traced(runner).post(path)
    [record] = caplog.records
    line = record.getMessage()
    assert line.isascii() and line.isprintable()
    names = [field.partition("=")[0] for field in line.split(" ")]
    assert names == [name for name in record.fields if name != "message"]
    assert record.fields["status"] == 404
    assert " status=404 " in line
