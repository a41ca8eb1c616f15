"""Which devices of a machine compute, and what a process that has one of them may use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from pythia_bento import hardware
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.settings import Settings, SettingsError

MOST = 64  # engines behind one front
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Device:
    """One of those that a service has; the machine's cores and memory are shared out among them."""

    kind: Literal["cuda", "cpu"]
    index: int  # of a GPU as the settings name it, else the same as ``number``
    number: int = 0  # among all of the service
    sharers: int = 1
    visible: str = ""  # of a GPU: what CUDA is to see

    @property
    def name(self) -> str:
        """As logs and metrics have it."""
        return f"{self.kind}:{self.index}"

    def settings(self, settings: Settings) -> Settings:
        """Those of its engine."""
        changed: dict[str, Any] = {"device": self.kind, "devices": None}
        if settings.host_models_gb is not None:
            changed["host_models_gb"] = settings.host_models_gb / self.sharers
        return settings.model_copy(update=changed)

    def take(self) -> None:
        """This process has it from now on. Called before anything asks CUDA."""
        hardware.share(self.number, self.sharers)
        if self.kind == "cuda":
            os.environ[VISIBLE] = self.visible
        elif self.sharers > 1:
            import torch

            torch.set_num_threads(hardware.usable_cores())


def check_devices(settings: Settings) -> None:
    """Raise SettingsError for what ``PYTHIA_DEVICES`` cannot mean, on whatever machine."""
    count, gpus = _cpu_engines(settings), _gpus(settings)
    if settings.devices is None:
        return
    if not 1 <= (len(gpus) if count is None else count) <= MOST and settings.devices != "auto":
        raise _wrong(settings, f"but there can be 1 to {MOST} engines")
    if len(set(gpus)) < len(gpus):
        raise _wrong(settings, "which names a GPU twice")
    other = "cuda" if count else "cpu" if gpus else None
    if settings.device == other:
        raise _wrong(settings, f"which PYTHIA_DEVICE={other} contradicts")
    if settings.engine_process is False:
        raise _wrong(settings, "which PYTHIA_ENGINE_PROCESS=false contradicts")


def devices_of(settings: Settings) -> list[Device]:
    """Those that ``PYTHIA_DEVICES`` names; raises SettingsError. Imports torch."""
    check_devices(settings)
    if (count := _cpu_engines(settings)) is not None:
        return [Device("cpu", number, number, count) for number in range(count)]
    import torch

    there = torch.cuda.device_count()
    indices = _gpus(settings) or list(range(0 if settings.device == "cpu" else there))
    if not indices:
        return [Device("cpu", 0)]
    if max(indices) >= there:
        seen = f"but CUDA sees {there} here, counted from 0"
        raise _wrong(settings, seen)
    named = [name for part in os.environ.get(VISIBLE, "").split(",") if (name := part.strip())]
    visible = named or [str(index) for index in range(there)]
    return [
        Device("cuda", index, number, len(indices), visible[index])
        for number, index in enumerate(indices)
    ]


def resources(settings: Settings) -> dict[str, Any]:
    """For BentoML, as far as the settings say it: who builds need not be like who serves.

    It shows a service its first GPUs: so many that those which are named are among them.
    """
    if gpus := _gpus(settings):
        return {"gpu": max(gpus) + 1}
    return {"gpu": 1} if settings.device == "cuda" and settings.devices is None else {}


def concurrency(settings: Settings) -> int:
    """Sequences that all engines compute at a time, as far as the settings say it."""
    kind = "cuda" if _gpus(settings) else settings.device
    return settings.batch_size(kind) * (_cpu_engines(settings) or len(_gpus(settings)) or 1)


def wants_gpu(settings: Settings) -> bool:
    """Whether a GPU computes. Does not import torch, which takes seconds."""
    if _cpu_engines(settings) or settings.device == "cpu":
        return False
    if _gpus(settings) or settings.device == "cuda":
        return True
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
        return bool(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return False


def for_service(settings: Settings) -> Settings:
    """With what a service decides for itself where nobody did.

    On a GPU the engine gets a process of its own: there the interpreter that serves is what limits
    both (docs/gpu.md). Not so outside a service: a program may not expect that another process
    imports its main module.
    """
    if settings.engine_process is not None or settings.devices is not None:
        return settings
    return settings.model_copy(update={"engine_process": wants_gpu(settings)})


def _cpu_engines(settings: Settings) -> int | None:
    kind, _, count = (settings.devices or "").partition(":")
    return int(count) if kind == "cpu" else None


def _gpus(settings: Settings) -> list[int]:
    numbers = settings.devices or ""
    return [int(number) for number in numbers.split(",")] if numbers[:1].isdigit() else []


def _wrong(settings: Settings, why: str) -> SettingsError:
    return SettingsError(f"setting devices (PYTHIA_DEVICES) is {settings.devices}, {why}")


def device_name(info: ModelInfo) -> str:
    """Of what computes in this process: devices of one name give equal bits."""
    if not info.is_on_gpu:
        return "cpu"
    import torch

    return torch.cuda.get_device_name()
