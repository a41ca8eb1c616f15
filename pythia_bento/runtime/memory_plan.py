"""How the memory of a device is shared out: keys and values, passes, checkpoints."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from pythia_bento.catalog import int8_bytes
from pythia_bento.checkpoints.shelf import Shelf
from pythia_bento.hardware import free_memory
from pythia_bento.model.kernels.base import Kernels, PackedWeights, pass_bytes
from pythia_bento.model.kernels.gpu.host_slabs import HostSlabs
from pythia_bento.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

# Share of the free memory that the KV cache takes when nobody says how much. On the CPU pages
# are mapped as they are used, and others want memory too.
CACHE_SHARE = {"cuda": 0.9, "cpu": 0.25}
SHELF_CACHE_BYTES = 8 * 10**9  # of a GPU that many checkpoints share, where nobody says
HOST_SHARE = 0.5  # of the host's free memory, for checkpoints that left a GPU
SHELF_SHARE = {"cuda": 0.95, "cpu": 0.5}  # of what is left, for checkpoints


@dataclass(frozen=True, slots=True)
class Plan:
    """What fits."""

    num_blocks: int  # of the KV cache
    capacity: int  # checkpoints on the device, the one that is loaded among them


def plan(settings: Settings, backend: Kernels, tokens: int, shelf: Shelf | None) -> Plan:
    """Once the first checkpoint is loaded; raises SettingsError where a shelf has no room.

    ``tokens`` are those of the largest pass.
    """
    device, free = backend.device.type, free_bytes(backend.device)
    if device == "cuda":
        free -= pass_bytes(backend.config, settings.batch_size(device), tokens)
        free -= backend.kept_bytes if shelf is None else 0
    blocks = _num_blocks(settings, backend, free, is_shared=shelf is not None)
    if shelf is None:
        return Plan(blocks, 1)
    cache = blocks * backend.kv_bytes_per_block() if device == "cuda" else 0
    return Plan(blocks, _capacity(settings, backend, free - cache))


def host_slabs(
    settings: Settings, weights: PackedWeights, device: torch.device
) -> HostSlabs | None:
    """Where weights go that leave a GPU; None where they are in the host's memory as it is."""
    if weights.slab is None:
        return None
    budget = int(free_memory() * HOST_SHARE)
    if settings.host_models_gb is not None:
        budget = int(settings.host_models_gb * 10**9)
    return HostSlabs(device, len(weights.slab.memory), budget)


def free_bytes(device: torch.device) -> int:
    """Memory that is not taken."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def _num_blocks(settings: Settings, backend: Kernels, free: int, *, is_shared: bool) -> int:
    """KV blocks: what was asked for, or a full batch of full contexts as far as memory allows."""
    block_bytes = backend.kv_bytes_per_block()
    if settings.kv_cache_gb is not None:
        return max(1, int(settings.kv_cache_gb * 10**9) // block_bytes)
    device = backend.device.type
    sequences = settings.batch_size(device)
    full = sequences * -(-backend.config.max_positions // backend.block_size)
    spare = int(free * CACHE_SHARE[device])
    if is_shared and device == "cuda":
        spare = min(spare // 2, SHELF_CACHE_BYTES)
    return max(1, min(full, spare // block_bytes))


def _capacity(settings: Settings, backend: Kernels, free: int) -> int:
    """Checkpoints, of which one is loaded. On a GPU there is a copy of the one that computes.

    One that comes there has its largest part beside the slab that it is copied into, and the first
    of all is there twice for a moment.
    """
    nbytes, device = int8_bytes(backend.config), backend.device.type
    copies, parts = (nbytes, nbytes * 5 // 4) if device == "cuda" else (0, 0)
    if settings.models_gb is None:
        left = free - copies
        room = nbytes + min(int(left * SHELF_SHARE[device]), left - parts)
        said = f"{free / 1e9:.1f} GB are free"
    else:
        room = int(settings.models_gb * 10**9) - copies
        said = f"setting models_gb (PYTHIA_MODELS_GB) is {settings.models_gb}"
    if room < 2 * nbytes:
        active = " and the active copy as much again" if copies else ""
        raise SettingsError(
            f"{said}, but one checkpoint of this shape takes {nbytes / 1e9:.3f} GB{active}, and "
            "PYTHIA_MODELS asks for more than one; PYTHIA_MODELS= serves PYTHIA_MODEL alone"
        )
    logger.info("%d checkpoints of %.3f GB fit on the device", room // nbytes, nbytes / 1e9)
    return room // nbytes
