"""The C interface of the compiled CPU kernels, typed for ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from pythia_bento.model.kernels.cpu import build

PANEL = 64  # output channels in a packed panel, as in src/matmul.h
BLOCK = 16  # tokens in a KV block, as in src/attention.h


class CNorm(Structure):
    """LayerNorm: fp32 weight and bias."""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class CLinear(Structure):
    """A packed int8 linear."""

    _fields_ = [
        ("packed", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("out", c_int64),
        ("in_", c_int64),
    ]


class CLayer(Structure):
    """One block of the model."""

    _fields_ = [
        ("input_norm", CNorm),
        ("post_attention_norm", CNorm),
        ("qkv", CLinear),
        ("dense", CLinear),
        ("up", CLinear),
        ("down", CLinear),
    ]


class CHead(Structure):
    """Final norm and packed 16-bit head."""

    _fields_ = [
        ("norm", CNorm),
        ("packed", c_void_p),
        ("scale", c_void_p),
        ("out", c_int64),
        ("in_", c_int64),
    ]


class CShape(Structure):
    """Head sizes and the rotary tables."""

    _fields_ = [
        ("heads", c_int64),
        ("head_dim", c_int64),
        ("rotary_dims", c_int64),
        ("positions", c_int64),
        ("cosine", c_void_p),
        ("sine", c_void_p),
    ]


class CCache(Structure):
    """Keys and values of one layer."""

    _fields_ = [("keys", c_void_p), ("values", c_void_p), ("blocks", c_int64)]


class CBatch(Structure):
    """ForwardBatch."""

    _fields_ = [
        ("tokens", c_int64),
        ("sequences", c_int64),
        ("table_width", c_int64),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("query_starts", c_void_p),
        ("context_lens", c_void_p),
        ("tables", c_void_p),
    ]


# SamplingRow, as an array of C structs that numpy fills.
CHOICE = np.dtype(
    [
        ("temperature", "f4"),
        ("top_p", "f4"),
        ("min_p", "f4"),
        ("top_k", "i4"),
        ("position", "i4"),
        ("seed", "u8"),
        ("biases", "i8"),
        ("bias_ids", "u8"),
        ("bias_values", "u8"),
        ("repetition", "f4"),
        ("frequency", "f4"),
        ("presence", "f4"),
        ("seen", "i8"),
        ("seen_ids", "u8"),
        ("seen_counts", "u8"),
    ],
    align=True,
)

_SIGNATURES: dict[str, tuple[object, ...]] = {
    "pythia_close": (c_void_p,),
    "pythia_threads": (c_void_p,),
    "pythia_pack": (c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p),
    "pythia_project_in": (
        c_void_p,
        POINTER(CLayer),
        c_void_p,
        c_int64,
        c_float,
        c_void_p,
        c_void_p,
    ),
    "pythia_attend": (
        c_void_p,
        POINTER(CShape),
        POINTER(CCache),
        POINTER(CBatch),
        c_void_p,
        c_void_p,
    ),
    "pythia_patterns": (
        c_void_p,
        POINTER(CShape),
        POINTER(CCache),
        POINTER(CBatch),
        c_void_p,
        c_void_p,
        c_int64,
        c_int64,
        c_void_p,
    ),
    "pythia_project_out": (c_void_p, POINTER(CLayer), c_void_p, c_int64, c_void_p, c_void_p),
    "pythia_project_out_parts": (
        c_void_p,
        POINTER(CLayer),
        c_int64,
        c_void_p,
        c_void_p,
        c_void_p,
        c_void_p,
    ),
    "pythia_normalise": (c_void_p, POINTER(CHead), c_void_p, c_int64, c_float, c_void_p),
    "pythia_logits": (c_void_p, POINTER(CHead), c_void_p, c_int64, c_float, c_void_p),
    "pythia_sample": (c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p),
    "pythia_logprobs": (
        c_void_p,
        c_void_p,
        c_int64,
        c_int64,
        c_void_p,
        c_int64,
        c_void_p,
        c_void_p,
        c_void_p,
        c_void_p,
    ),
    "pythia_scores": (
        c_void_p,
        POINTER(CHead),
        c_void_p,
        c_int64,
        c_float,
        c_void_p,
        c_int64,
        c_void_p,
        c_void_p,
        c_void_p,
        c_void_p,
    ),
}


@lru_cache
def load(variant: str) -> ctypes.CDLL:
    """The library of one instruction set, compiled if need be."""
    library = ctypes.CDLL(str(build.library(variant)))
    library.pythia_open.argtypes = (c_int, c_int)
    library.pythia_open.restype = c_void_p
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = arguments
        if name not in ("pythia_close", "pythia_threads"):
            function.restype, function.errcheck = c_char_p, _refused
    library.pythia_threads.restype = c_int
    library.pythia_close.restype = None
    return library


def _refused(what: bytes | None, function: Any, arguments: tuple[Any, ...]) -> None:
    """Raise ValueError with the kernels' own words; see src/check.h."""
    if what is not None:
        raise ValueError(f"{function.__name__}: {what.decode()}")


def address(tensor: Tensor) -> int:
    """Where a contiguous tensor's values are."""
    return tensor.data_ptr()
