"""Computes an engine's steps on a device; see ``engine.executor`` for what it promises."""

from __future__ import annotations

from collections.abc import Callable

from pythia_bento.engine.executor import EngineConfig, Executor
from pythia_bento.executor.graphs.runner import CudaModelRunner
from pythia_bento.executor.model_runner import ModelRunner
from pythia_bento.model.gpt_neox import GPTNeoX

MakeExecutor = Callable[[GPTNeoX, EngineConfig, int, Callable[[int, int], None] | None], Executor]


def make_executor(
    model: GPTNeoX,
    config: EngineConfig,
    num_tokens: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Executor:
    """Allocate the KV cache and prepare the device: captured graphs where kernels allow it.

    Ids below ``num_tokens`` may be chosen. ``on_progress(done, total)`` is called while graphs are
    captured.
    """
    if (kernels := model.kernels.capturable()) is None:
        return ModelRunner(model, config, num_tokens)
    return CudaModelRunner(model, kernels, config, num_tokens, on_progress)
