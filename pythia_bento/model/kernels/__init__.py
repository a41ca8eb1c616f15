"""The kernel backends, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # compiling kernels needs no torch, whose import takes seconds
    import torch

    from pythia_bento.model.config import ModelConfig
    from pythia_bento.model.kernels.base import Kernels

BACKENDS = ("cpu", "triton", "reference")


def create(
    name: str,
    config: ModelConfig,
    device: torch.device,
    matmul: str = "w8a16",
    *,
    is_for_packing: bool = False,
) -> Kernels:
    """Build a backend for one model on one device; imports only what that backend needs.

    ``matmul`` is "w8a16" or, with the reference backend alone, "llm-int8". One that is for packing
    weights while another computes takes few of the machine's cores. Raises ValueError for a pair
    that does not exist.
    """
    if matmul != "w8a16" and name != "reference":
        raise ValueError(f"the {name} backend computes w8a16, not {matmul}")
    if name == "cpu":
        from pythia_bento.model.kernels.cpu.kernels import CpuKernels

        return CpuKernels(config, device, threads=1 if is_for_packing else None)
    if name == "triton":
        from pythia_bento.model.kernels.gpu.kernels import TritonKernels

        return TritonKernels(config, device)
    if name == "reference":
        return _reference(config, device, matmul)
    raise ValueError(f"no kernel backend is called {name!r}; there are {', '.join(BACKENDS)}")


def _reference(config: ModelConfig, device: torch.device, matmul: str) -> Kernels:
    from pythia_bento.model.kernels.reference.kernels import ReferenceKernels
    from pythia_bento.model.kernels.reference.llm_int8 import LLMInt8Kernels

    kinds = {kind.matmul: kind for kind in (ReferenceKernels, LLMInt8Kernels)}
    if matmul not in kinds:
        raise ValueError(f"matmul is {matmul!r}; it can be {' or '.join(kinds)}")
    return kinds[matmul](config, device)
