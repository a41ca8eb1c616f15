"""The exception tree: every public failure is one leaf with one HTTP status and one gRPC code.

Messages are one sentence that names the field and the limit; ``param`` names the request field
at fault, as in OpenAI's error body. Transports translate leaves and never invent their own.
"""

from __future__ import annotations

from typing import Any, ClassVar

_LONGEST = 600  # characters of a sentence about a file


class PythiaError(Exception):
    """Root of the tree. ``str(error)`` is safe to show to a client."""

    status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retry_after: float | None = None
    """Seconds after which to try again, where that is known."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(PythiaError):
    """The request can never succeed as written."""

    status = 400
    grpc_code = "INVALID_ARGUMENT"
    type = "invalid_request_error"
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and max_tokens do not fit into the model's context."""

    code = "context_length_exceeded"


class Unauthenticated(PythiaError):
    """No API key, or one that is not known."""

    status = 401
    grpc_code = "UNAUTHENTICATED"
    type = "invalid_request_error"
    code = "invalid_api_key"


class PermissionDenied(PythiaError):
    """The key is known and may not do this."""

    status = 403
    grpc_code = "PERMISSION_DENIED"
    type = "invalid_request_error"
    code = "permission_denied"


class ModelNotFound(PythiaError):
    """No such model or revision; the message suggests the nearest ones."""

    status = 404
    grpc_code = "NOT_FOUND"
    type = "invalid_request_error"
    code = "model_not_found"


class RequestTimeout(PythiaError):
    """The client took too long to send its request."""

    status = 408
    grpc_code = "DEADLINE_EXCEEDED"
    type = "timeout_error"
    code = "request_timeout"


class PayloadTooLarge(PythiaError):
    """The request body is over the size limit."""

    status = 413
    grpc_code = "RESOURCE_EXHAUSTED"
    type = "invalid_request_error"
    code = "payload_too_large"


class UnsupportedMediaType(PythiaError):
    """The request's body is of a kind that is not read here."""

    status = 415
    grpc_code = "INVALID_ARGUMENT"
    type = "invalid_request_error"
    code = "unsupported_media_type"


class Overloaded(PythiaError):
    """Too many requests, of all callers or of this one."""

    status = 429
    grpc_code = "RESOURCE_EXHAUSTED"
    type = "overloaded_error"
    code = "overloaded"
    retry_after: float

    def __init__(self, message: str, *, param: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class NonFiniteLogits(PythiaError):
    """The model produced NaN or infinity for this request; no other request is affected."""

    code = "non_finite_logits"


class CaptureOverflow(PythiaError):
    """What was to be seen of the model's inside does not fit the type that was asked for."""

    code = "capture_overflow"


class OutOfMemory(PythiaError):
    """The device has no memory for this request, even alone in its step."""

    status = 503
    grpc_code = "UNAVAILABLE"
    code = "out_of_memory"


class CheckpointError(PythiaError):
    """A checkpoint is missing, damaged, or of a kind that cannot be served."""

    code = "checkpoint_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        # Names in files and a library's words about them may be of any length, and have lines.
        super().__init__(printable(message, most=_LONGEST), param=param)


class NotInStore(CheckpointError):
    """A model that can be pulled and was not."""

    code = "not_in_store"


class EngineUnavailable(PythiaError):
    """The engine is starting, stopping or dead."""

    status = 503
    grpc_code = "UNAVAILABLE"
    code = "engine_unavailable"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class DeadlineExceeded(PythiaError):
    """The request did not finish within its deadline."""

    status = 504
    grpc_code = "DEADLINE_EXCEEDED"
    type = "timeout_error"
    code = "deadline_exceeded"


def shown(value: Any, most: int = 40) -> str:
    """A value from outside, short enough for a sentence: at most ``most`` characters."""
    try:
        text = _beginning(value, most)
    except ValueError:  # Python refuses to write integers of thousands of digits
        text = "a huge number"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _beginning(value: Any, most: int) -> str:
    """``repr`` where it is that short, and else at least its first ``most`` characters."""
    if isinstance(value, str):
        return repr(value[: most + 1])
    if not isinstance(value, list | tuple | dict):
        return repr(value)
    brackets = {list: "[]", tuple: "()", dict: "{}"}[type(value)]
    text = brackets[0]
    for part in value:
        text += ", " if len(text) > 1 else ""
        if isinstance(value, dict):
            text += f"{_beginning(part, most)}: "
            part = value[part]
        text += _beginning(part, most)
        if len(text) > most:
            break
    return text + ("," if isinstance(value, tuple) and len(value) == 1 else "") + brackets[1]


def printable(text: str, most: int | None = None) -> str:
    """Text from outside for a sentence: nothing in it ends a line, steers a terminal or is long."""
    text = text if most is None or len(text) <= most else f"{text[: most - 3]}..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
