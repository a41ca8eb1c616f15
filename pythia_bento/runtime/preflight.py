"""What can be wrong with settings and files, looked at before torch is imported.

The process that starts and restarts workers needs no torch, whose import takes seconds.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.settings import Settings, SettingsError

if TYPE_CHECKING:
    import torch


def check_loadable(settings: Settings) -> None:
    """Look at everything that can be wrong before weights are loaded.

    Raises CheckpointError, ModelNotFound or SettingsError.
    """
    check_matmul(settings)
    if settings.device == "cuda":
        find_device(settings)
    checkpoint = load_checkpoint(settings.model)
    Tokenizer.from_file(checkpoint.tokenizer_path)


def check_matmul(settings: Settings) -> None:
    """Raise SettingsError where the arithmetic needs a package that is not installed."""
    if settings.matmul == "llm-int8" and find_spec("bitsandbytes") is None:
        raise SettingsError(
            "setting matmul (PYTHIA_MATMUL) is llm-int8, which needs the package bitsandbytes: "
            "`pip install 'pythia-bento[llm-int8]'`"
        )


def find_device(settings: Settings) -> torch.device:
    """Raises SettingsError where the device asked for is not there. Imports torch."""
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("setting device (PYTHIA_DEVICE) is cuda, but torch finds no GPU")
    use_cuda = settings.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")
