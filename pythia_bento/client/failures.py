"""From a transport's failure back to the leaf of the exception tree that the server raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pythia_bento import errors
from pythia_bento.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    PythiaError,
    Unauthenticated,
)

BY_CODE: dict[str, type[PythiaError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PythiaError)
}
# For answers that are not of the service itself but of something before it.
BY_STATUS: dict[int, type[PythiaError]] = {
    kind.status: kind
    for kind in (
        InvalidRequest,
        Unauthenticated,
        PermissionDenied,
        PayloadTooLarge,
        Overloaded,
        EngineUnavailable,
        DeadlineExceeded,
    )
}
BY_GRPC_CODE: dict[str, type[PythiaError]] = {
    **{kind.grpc_code: kind for kind in BY_STATUS.values()},
    "RESOURCE_EXHAUSTED": PayloadTooLarge,  # grpc itself says so of long messages
}


def failure(
    kind: type[PythiaError] | None, message: str, param: str | None, retry_after: float | None
) -> PythiaError:
    """An error as the server raised it."""
    error = (kind or PythiaError)(message, param=param)
    if retry_after is not None:
        error.retry_after = retry_after
    return error


def of_json(body: Mapping[str, Any]) -> PythiaError:
    """An error in an answer of JSON."""
    return failure(BY_CODE.get(body["code"]), body["message"], body["param"], None)
