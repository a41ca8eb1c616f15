"""All layers of a decode step of few sequences as one persistent kernel; see ``decode_step.cu``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from pythia_bento.model.batch import DecodeRows
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.cuda.decode_constants import (
    BATCHES,
    ROWS,
    SOURCE,
    constants_for,
    fits,
)
from pythia_bento.model.kernels.gpu.cuda.nvrtc import Kernel, Source, build
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.packing import TritonLayer
from pythia_bento.model.kernels.gpu.workspace import (
    Activations,
    AttentionScratch,
    TritonKVCache,
    shared_bytes,
)

THREADS = 9 * 32


def _pointers(names: str) -> list[tuple[str, type[ctypes.c_void_p]]]:
    return [(name, ctypes.c_void_p) for name in names.split()]


class _Layer(ctypes.Structure):
    """``Layer`` of ``step.cuh``."""

    _fields_ = [
        *_pointers("w_in dense down in_scale in_bias dense_scale down_scale out_bias norms"),
        *_pointers("keys values"),
        ("gelu_scale", ctypes.c_float),
        ("score_scale", ctypes.c_float),
    ]


class _Step(ctypes.Structure):
    """``Step`` of ``step.cuh``."""

    _fields_ = [
        *_pointers("layers table token_ids context_lens block_tables cosine sine head_norm"),
        *_pointers("x h qkv up attended parts tile_acc tile_sums tile_tickets counters"),
        ("eps", ctypes.c_float),
    ]


class DecodeStep:
    """Launches the kernel for the sizes of ``BATCHES`` that fit; ``batches`` says which."""

    def __init__(
        self,
        launch: Launcher,
        weights: PackedWeights,
        cache: TritonKVCache,
        max_batch: int,
    ) -> None:
        """Compile; raises RuntimeError where that is impossible."""
        self._config, self._launcher, self._weights = launch.config, launch, weights
        device = launch.device
        properties = torch.cuda.get_device_properties(device)
        self._blocks = properties.multi_processor_count
        self._shared = shared_bytes(device)
        wanted = [b for b in BATCHES if b <= max_batch and fits(self._config, b)]
        binaries = build([self._source(batch) for batch in wanted])
        self._kernels = {
            batch: Kernel(binary, "decode_step", self._shared)
            for batch, binary in zip(wanted, binaries, strict=True)
        }
        self._layers = _device_array(
            [self._layer(cache, i, layer) for i, layer in enumerate(weights.layers)], device
        )
        self._scratch = AttentionScratch(self._config, max(wanted, default=0), device)
        words = 6 + self._config.hidden_size // ROWS
        self._counters = torch.zeros(words, dtype=torch.int32, device=device)

    @property
    def batches(self) -> frozenset[int]:
        """Numbers of rows that ``launch`` takes."""
        return frozenset(self._kernels)

    def launch(self, rows: DecodeRows, a: Activations) -> None:
        """From the embedding to the final norm, which is ``a.h[0]``, of as many rows as ``a`` has.

        Writes the cache and all of ``a``.
        """
        step = _Step(
            layers=self._layers.data_ptr(),
            table=self._weights.table.data_ptr(),
            token_ids=rows.token_ids.data_ptr(),
            context_lens=rows.context_lens.data_ptr(),
            block_tables=rows.block_tables.data_ptr(),
            cosine=self._launcher.cosine.data_ptr(),
            sine=self._launcher.sine.data_ptr(),
            head_norm=self._weights.head.norms.data_ptr(),
            x=a.x.data_ptr(),
            h=a.h.data_ptr(),
            qkv=a.qkv.data_ptr(),
            up=a.up.data_ptr(),
            attended=a.attended.data_ptr(),
            parts=a.parts.data_ptr(),
            tile_acc=self._scratch.acc.data_ptr(),
            tile_sums=self._scratch.best.data_ptr(),
            tile_tickets=self._scratch.tickets.data_ptr(),
            counters=self._counters.data_ptr(),
            eps=self._config.norm_eps,
        )
        self._kernels[len(a.x)].launch_cooperative(self._blocks, THREADS, step)

    def _source(self, batch: int) -> Source:
        return Source(SOURCE, constants_for(self._config, batch, self._blocks, self._shared))

    def _layer(self, cache: TritonKVCache, index: int, layer: TritonLayer) -> _Layer:
        return _Layer(
            w_in=layer.w_in.data_ptr(),
            dense=layer.dense.data_ptr(),
            down=layer.down.data_ptr(),
            in_scale=layer.in_scale.data_ptr(),
            in_bias=layer.in_bias.data_ptr(),
            dense_scale=layer.dense_scale.data_ptr(),
            down_scale=layer.down_scale.data_ptr(),
            out_bias=layer.out_bias.data_ptr(),
            norms=layer.norms.data_ptr(),
            keys=cache.keys[index].data_ptr(),
            values=cache.values[index].data_ptr(),
            gelu_scale=layer.gelu_scale,
            score_scale=self._launcher.score_scale(layer.qk_scale),
        )


def _device_array(structures: list[_Layer], device: torch.device) -> Tensor:
    data = b"".join(bytes(structure) for structure in structures)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
