"""What can be wrong with settings and files, looked at before torch is imported.

The process that starts and restarts workers needs no torch, whose import takes seconds.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from pythia_bento.catalog import parse
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.patterns import parse_patterns
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import ModelNotFound
from pythia_bento.model.kernels.cpu import build
from pythia_bento.runtime.devices import check_devices, wants_gpu
from pythia_bento.settings import Settings, SettingsError

if TYPE_CHECKING:
    import torch

REFERENCE = "PYTHIA_BACKEND=reference works without, slowly, with answers that depend on the batch"


def check_loadable(settings: Settings) -> None:
    """Look at everything that can be wrong before weights are loaded.

    Raises CheckpointError, ModelNotFound or SettingsError.
    """
    check_matmul(settings)
    check_models(settings)
    check_devices(settings)
    if settings.device == "cuda":
        find_device(settings)
    check_kernels(settings)
    checkpoint = load_checkpoint(settings.model)
    Tokenizer.from_bytes(checkpoint.tokenizer, checkpoint.tokenizer_path)


def check_models(settings: Settings) -> None:
    """Raise SettingsError for what names no models."""
    try:
        parse_patterns(settings.models)
    except ValueError as error:
        raise SettingsError(f"setting models (PYTHIA_MODELS) {error}") from None
    for id in settings.pinned_ids:
        try:
            parse(id)
        except ModelNotFound as error:
            raise SettingsError(f"setting pinned (PYTHIA_PINNED): {error.message}") from None


def check_matmul(settings: Settings) -> None:
    """Raise SettingsError where the arithmetic needs a package that is not installed."""
    if settings.matmul == "llm-int8" and find_spec("bitsandbytes") is None:
        raise SettingsError(
            "setting matmul (PYTHIA_MATMUL) is llm-int8, which needs the package bitsandbytes: "
            "`pip install 'pythia-bento[llm-int8]'`"
        )


def check_kernels(settings: Settings) -> None:
    """Raise SettingsError where the CPU's kernels are asked for and can neither be had nor made."""
    if settings.matmul == "llm-int8" or settings.backend not in ("auto", "cpu"):
        return
    if settings.backend == "auto" and wants_gpu(settings):
        return
    try:
        build.library(build.supported()[0])
    except RuntimeError as error:
        raise no_backend(settings, error) from None


def no_backend(settings: Settings, why: Exception) -> SettingsError:
    """What is said of a backend that does not work here, and what to do about it."""
    message = f"setting backend (PYTHIA_BACKEND) is {settings.backend}, but {why}"
    if settings.backend == "auto":
        elsewhere = "PYTHIA_DEVICE=cpu computes on the CPU, and " if wants_gpu(settings) else ""
        message += f"; {elsewhere}{REFERENCE}"
    return SettingsError(message)


def find_device(settings: Settings) -> torch.device:
    """Raises SettingsError where the device asked for is not there. Imports torch."""
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("setting device (PYTHIA_DEVICE) is cuda, but torch finds no GPU")
    use_cuda = settings.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")
