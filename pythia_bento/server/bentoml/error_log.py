"""BentoML's log of failed requests, without what clients sent."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from pythia_bento.server.bentoml.internals import internal

LOGGER = "bentoml._internal.server.http_app:logger"


def hide_bodies() -> None:
    """Let BentoML say nothing of a body that is not valid: it would quote the body.

    The client is told what is wrong, and the line of the call has the status. Holds for all that
    this process serves. Raises MissingInternal.
    """
    internal(LOGGER).addFilter(_may_be_logged)


def _may_be_logged(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], ValidationError))
