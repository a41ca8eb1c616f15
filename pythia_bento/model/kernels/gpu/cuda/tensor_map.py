"""Descriptions of matrices for the copy engine, as kernels take them in their parameters."""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any

from cuda.bindings import driver
from torch import Tensor

BYTES = 128
_ALIGNMENT = 64
_WIDTH = 64  # fp16 values of a row that a copy brings: 128 bytes, the width of the swizzle


def tensor_map(matrix: Tensor, rows: int) -> bytes:
    """Of an fp16 matrix, in tiles of ``rows`` x 64; what lies past its last row reads as zero."""
    return _encoded(matrix.data_ptr(), *matrix.shape, rows)


@lru_cache(maxsize=4096)
def _encoded(address: int, height: int, width: int, rows: int) -> bytes:
    buffer = ctypes.create_string_buffer(BYTES + _ALIGNMENT)
    start = -ctypes.addressof(buffer) % _ALIGNMENT
    status = _encode()(
        ctypes.addressof(buffer) + start,
        _KIND,
        2,
        address,
        (ctypes.c_uint64 * 2)(width, height),
        (ctypes.c_uint64 * 1)(2 * width),
        (ctypes.c_uint32 * 2)(_WIDTH, rows),
        (ctypes.c_uint32 * 2)(1, 1),
        _INTERLEAVE,
        _SWIZZLE,
        _PROMOTION,
        _FILL,
    )
    if status:
        raise RuntimeError(f"cuTensorMapEncodeTiled failed: {driver.CUresult(status).name}")
    return buffer.raw[start : start + BYTES]


_KIND = int(driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_FLOAT16)
_INTERLEAVE = int(driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE)
_SWIZZLE = int(driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B)
_PROMOTION = int(driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B)
_FILL = int(driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)


@cache
def _encode() -> Any:
    """The driver's function. That of ``cuda.bindings`` does not align what it writes."""
    encode = ctypes.CDLL("libcuda.so.1").cuTensorMapEncodeTiled
    encode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_uint32,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
    ]
    return encode
