from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
import uvicorn.config
from bentoml._internal.server.http import access

from pythia_bento.server.bentoml.internals import (
    CONTAINER,
    MissingInternal,
    attribute,
    internal,
    optional,
    replace,
)

AUTO = "uvicorn.config:HTTP_PROTOCOLS.auto"
ACCESS_LOG = "bentoml._internal.server.http.access:AccessLogMiddleware"


def test_a_part_is_found_by_where_it_stands() -> None:
    assert internal(ACCESS_LOG) is access.AccessLogMiddleware
    assert internal(AUTO) == uvicorn.config.HTTP_PROTOCOLS["auto"]


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("bentoml._internal.server.http.access:Gone", "bentoml"),
        ("bentoml._internal.server.http.gone:AccessLogMiddleware", "bentoml"),
        ("_bentoml_impl.server.app:Gone", "bentoml"),
        (f"{CONTAINER}.gone", "bentoml"),
        ("uvicorn.config:HTTP_PROTOCOLS.gone", "uvicorn"),
    ],
)
def test_one_that_is_not_there_is_named_with_the_version(path: str, package: str) -> None:
    for reach in (internal, lambda path: replace(path, None)):
        with pytest.raises(MissingInternal) as raised:
            reach(path)
        assert raised.value.message.startswith(f"{package} {version(package)} has no {path},")


def test_an_attribute_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingInternal, match=r"has no builtins:int\.gone"):
        attribute(3, "gone")


def test_what_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((access, "AccessLogMiddleware"), (access.AccessLogMiddleware, "__call__")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "before")
    for path in (AUTO, f"{ACCESS_LOG}.__call__", ACCESS_LOG):
        new: Any = object()
        replace(path, new)
        assert internal(path) is new


def test_what_is_only_faster_is_left_out_with_one_line(caplog: Any) -> None:
    with optional("it is slow"):
        internal("uvicorn.config:Gone")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "has no uvicorn.config:Gone" in record.getMessage()
    assert record.getMessage().endswith(": it is slow")
