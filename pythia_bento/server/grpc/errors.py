"""The exception tree as gRPC statuses with google.rpc details."""

from __future__ import annotations

from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from pythia_bento.errors import InvalidRequest, PythiaError

DOMAIN = "pythia-bento"


def grpc_status(error: PythiaError) -> grpc.Status:
    """Code, sentence and details; ``ErrorInfo.reason`` is ``error.code`` in capitals."""
    code = grpc.StatusCode[error.grpc_code]
    status = Status(code=code.value[0], message=error.message)
    status.details.extend(_packed(detail) for detail in _details(error))
    return cast(grpc.Status, rpc_status.to_status(status))


def _details(error: PythiaError) -> list[Message]:
    metadata = {"type": error.type} | ({"param": error.param} if error.param else {})
    details: list[Message] = [
        ErrorInfo(reason=error.code.upper(), domain=DOMAIN, metadata=metadata)
    ]
    if isinstance(error, InvalidRequest) and error.param:
        field = BadRequest.FieldViolation(field=error.param, description=error.message)
        details.append(BadRequest(field_violations=[field]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(RetryInfo(retry_delay=delay))
    return details


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
