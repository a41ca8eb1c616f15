"""Descriptor pools: where protobuf keeps the definitions of messages."""

from __future__ import annotations

from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool


def with_files(*serialized: bytes) -> DescriptorPool:
    """A pool of these files; each must come after those that it imports."""
    pool = DescriptorPool()
    for file in serialized:
        pool.AddSerializedFile(file)
    return pool


BENTOML_V1 = with_files(
    struct_pb2.DESCRIPTOR.serialized_pb,
    wrappers_pb2.DESCRIPTOR.serialized_pb,
)
"""``bentoml.grpc.v1``, apart from BentoML's own module, whose symbols are the same."""
