"""BentoML's gRPC stubs. Its package chooses among those that it has by an old rule."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

PACKAGE = "bentoml.grpc.v1"


@contextlib.contextmanager
def bentoml_stub() -> Iterator[tuple[ModuleType, ModuleType]]:
    """Its messages and its services, made for protobuf 4.

    With later versions of protobuf ``bentoml.grpc.v1.service_pb2`` takes the module that was made
    for protobuf 3, which cannot be imported any more; here it is the other one.
    """
    name = f"{PACKAGE}.service_pb2"
    before = sys.modules.get(name)
    messages = importlib.import_module(f"{PACKAGE}._generated_pb4.service_pb2")
    sys.modules[name] = messages
    package = importlib.import_module(PACKAGE)
    package.service_pb2 = messages  # type: ignore[attr-defined]
    try:
        yield messages, importlib.import_module(f"{PACKAGE}._generated_pb4.service_pb2_grpc")
    finally:
        if before is None:
            del sys.modules[name]
            del package.service_pb2  # type: ignore[attr-defined]
