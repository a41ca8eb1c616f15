"""All layers of a decode step of few sequences as one persistent kernel; see ``decode_step.cu``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from pythia_bento.model.kernels.gpu.cuda.decode_constants import (
    BATCHES,
    ROWS,
    SOURCE,
    constants_for,
    fits,
)
from pythia_bento.model.kernels.gpu.cuda.nvrtc import Kernel, Source, build
from pythia_bento.model.kernels.gpu.kernels import TritonKernels, TritonKVCache
from pythia_bento.model.kernels.gpu.launch import AttentionScratch
from pythia_bento.model.kernels.gpu.packing import TritonHead, TritonLayer

THREADS = 9 * 32


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("w_in", "dense", "down", "in_scale", "in_bias")),
        *((name, ctypes.c_void_p) for name in ("dense_scale", "down_scale", "out_bias", "norms")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_float) for name in ("gelu_scale", "score_scale")),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("layers", "table", "token_ids", "context_lens")),
        *((name, ctypes.c_void_p) for name in ("block_tables", "cosine", "sine", "head_norm")),
        *((name, ctypes.c_void_p) for name in ("x", "h", "qkv", "up", "attended", "parts")),
        *((name, ctypes.c_void_p) for name in ("tile_acc", "tile_sums", "tile_tickets")),
        ("counters", ctypes.c_void_p),
        ("eps", ctypes.c_float),
    ]


class DecodeStep:
    """Launches the kernel for the sizes of ``BATCHES`` that fit; ``batches`` says which."""

    def __init__(
        self,
        kernels: TritonKernels,
        table: Tensor,  # fp16 [V, H]
        layers: Sequence[TritonLayer],
        head: TritonHead,
        cache: TritonKVCache,
        max_batch: int,
    ) -> None:
        """Compile; raises RuntimeError where that is impossible."""
        self._config, self._launcher = kernels.config, kernels.launch
        self._table, self._head = table, head
        device = torch.cuda.get_device_properties(kernels.device)
        self._blocks = device.multi_processor_count
        self._shared = int(device.shared_memory_per_block_optin)  # type: ignore[attr-defined]
        wanted = [b for b in BATCHES if b <= max_batch and fits(self._config, b)]
        binaries = build([self._source(batch) for batch in wanted])
        self._kernels = {
            batch: Kernel(binary, "decode_step", self._shared)
            for batch, binary in zip(wanted, binaries, strict=True)
        }
        self._layers = _device_array(
            [self._layer(cache, i, layer) for i, layer in enumerate(layers)], kernels.device
        )
        self._scratch = AttentionScratch(self._config, max(wanted, default=0), kernels.device)
        words = 6 + self._config.hidden_size // ROWS
        self._counters = torch.zeros(words, dtype=torch.int32, device=kernels.device)

    @property
    def batches(self) -> frozenset[int]:
        """Numbers of rows that ``launch`` takes."""
        return frozenset(self._kernels)

    def launch(
        self,
        token_ids: Tensor,  # int32 [B]
        context_lens: Tensor,  # int32 [B], with the new token; 0 where a row is not in use
        tables: Tensor,  # int32 [B, W]
        x: Tensor,  # fp32 [B, H]
        h: Tensor,  # fp16 [2, B, H]; the first is normed for the head in the end
        qkv: Tensor,  # fp16 [B, 3 H]
        up: Tensor,  # fp16 [B, U]
        attended: Tensor,  # fp16 [B, H]
        parts: Tensor,  # fp32 [1 + CHUNKS, B, H]
    ) -> None:
        """From the embedding to the final norm: writes the cache and everything from ``x`` on."""
        cosine, sine = self._launcher.rotary_tables
        scratch = self._scratch
        tensors = [
            *(self._layers, self._table, token_ids, context_lens, tables, cosine, sine),
            *(self._head.norms, x, h, qkv, up, attended, parts),
            *(scratch.acc, scratch.best, scratch.tickets, self._counters),
        ]
        step = _Step(*(tensor.data_ptr() for tensor in tensors), self._config.norm_eps)
        self._kernels[len(x)].launch_together(self._blocks, THREADS, step)

    def _source(self, batch: int) -> Source:
        return Source(SOURCE, constants_for(self._config, batch, self._blocks, self._shared))

    def _layer(self, cache: TritonKVCache, index: int, layer: TritonLayer) -> _Layer:
        tensors = [
            *(layer.w_in, layer.dense, layer.down, layer.in_scale, layer.in_bias),
            *(layer.dense_scale, layer.down_scale, layer.out_bias, layer.norms),
            *(cache.keys[index], cache.values[index]),
        ]
        return _Layer(
            *(tensor.data_ptr() for tensor in tensors),
            *(layer.gelu_scale, self._launcher.score_scale(layer.qk_scale)),
        )


def _device_array(structures: list[_Layer], device: torch.device) -> Tensor:
    data = b"".join(bytes(structure) for structure in structures)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
