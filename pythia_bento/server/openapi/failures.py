"""How operations fail: errors that several have in common."""

from __future__ import annotations

from pythia_bento import errors
from pythia_bento.server.openapi.operation import Errors

UNAVAILABLE: Errors = (errors.PythiaError, errors.EngineUnavailable, errors.OutOfMemory)
ACCESS: Errors = (errors.Unauthenticated, errors.PermissionDenied, errors.Overloaded)
BODY: Errors = (
    *(errors.InvalidRequest, errors.RequestTimeout),
    *(errors.PayloadTooLarge, errors.UnsupportedMediaType),
)
ENGINE: Errors = (
    errors.ContextLengthExceeded,
    errors.NonFiniteLogits,
    errors.DeadlineExceeded,
)
MODEL: Errors = (errors.ModelNotFound, errors.CheckpointError)  # where one is asked for by name
