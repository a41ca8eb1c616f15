from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from pythia_bento.server.bentoml import error_log
from pythia_bento.server.bentoml.internals import internal


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found: logging.Logger = internal(error_log.LOGGER)
    before = list(found.filters)
    error_log.hide_bodies()
    yield found
    found.filters[:] = before


def test_a_body_that_is_not_valid_is_not_quoted(logger: logging.Logger, caplog: Any) -> None:
    try:
        TypeAdapter(list[int]).validate_python("my secret")
    except ValueError:
        logger.exception("Exception on /score [POST]")
    assert caplog.records == []


def test_other_errors_are_told(logger: logging.Logger, caplog: Any) -> None:
    try:
        raise ValueError("a reason")
    except ValueError:
        logger.exception("Exception on /score [POST]")
    assert "a reason" in caplog.text
