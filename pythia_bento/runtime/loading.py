"""From settings to an engine: checkpoint, device, kernels, memory."""

from __future__ import annotations

import hashlib
import logging
from functools import partial

import torch

from pythia_bento import __version__
from pythia_bento.catalog import int8_bytes
from pythia_bento.checkpoints.checkpoint import Checkpoint, find_checkpoint
from pythia_bento.checkpoints.files import weights_sha256
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits
from pythia_bento.executor import MakeExecutor, make_executor
from pythia_bento.executor.out_of_memory import is_out_of_memory
from pythia_bento.hardware import free_memory
from pythia_bento.model import kernels
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import Kernels, pass_bytes
from pythia_bento.runtime.model_info import ModelInfo, Progress, Provenance
from pythia_bento.runtime.preflight import check_matmul, find_device, no_backend
from pythia_bento.runtime.sources import sources_hash
from pythia_bento.settings import Settings, SettingsError

logger = logging.getLogger(__name__)
# It warns on import of a package for 4-bit weights that is missing; nothing here uses those.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Share of the free memory that the KV cache takes when nobody says how much. On the CPU pages
# are mapped as they are used, and others want memory too.
CACHE_SHARE = {"cuda": 0.9, "cpu": 0.25}
# Tokens in a step where nobody says how many: on a GPU larger passes cost less a token, see
# docs/gpu.md; on a CPU they only keep others waiting.
TOKENS_PER_STEP = {"cuda": 2048, "cpu": 512}


def load_engine(
    settings: Settings, on_progress: Progress, make: MakeExecutor = make_executor
) -> tuple[Engine, ModelInfo]:
    """Raises CheckpointError, ModelNotFound or SettingsError."""
    check_matmul(settings)
    device = find_device(settings)
    checkpoint = find_checkpoint(settings.model)
    if checkpoint.same_weights:
        others = ", ".join(checkpoint.same_weights)
        logger.warning("the weights of %s are also those of %s", settings.model, others)
    tokenizer = Tokenizer.from_bytes(checkpoint.tokenizer, checkpoint.tokenizer_path)
    backend = _kernels(settings, checkpoint.config, device)
    try:
        engine = _build(settings, checkpoint, backend, tokenizer, on_progress, make)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SettingsError(_too_large(checkpoint, backend)) from None
    return engine, _info(settings, checkpoint, backend)


def _build(
    settings: Settings,
    checkpoint: Checkpoint,
    backend: Kernels,
    tokenizer: Tokenizer,
    on_progress: Progress,
    make: MakeExecutor,
) -> Engine:
    """Everything that takes much memory."""
    loading = partial(on_progress, f"loading {checkpoint.model_id}")
    model = GPTNeoX(checkpoint.source, backend, loading)
    if backend.has_own_threads:
        torch.set_num_threads(1)
    config = EngineConfig(
        num_blocks=_num_blocks(settings, backend, checkpoint.config),
        max_batch_size=settings.batch_size(backend.device.type),
        max_tokens_per_step=tokens_per_step(settings, backend.device.type),
    )
    preparing = partial(on_progress, f"preparing {checkpoint.model_id}")
    limits = limits_of(
        settings,
        num_tokens=tokenizer.num_tokens,
        max_positions=checkpoint.config.max_positions,
        cache_tokens=config.num_blocks * backend.block_size,
        max_batch_size=config.max_batch_size,
    )
    executor = make(model, config, tokenizer.num_tokens, preparing)
    return Engine(executor, tokenizer, limits, root_of(checkpoint, backend.name, backend.matmul))


def root_of(checkpoint: Checkpoint, backend: str, matmul: str) -> bytes:
    """32 bytes for what decides keys and values: weights, kernels, arithmetic.

    The id that was asked for has no part in it.
    """
    weights = weights_sha256(checkpoint.files)
    return hashlib.sha256(f"{weights} {backend} {matmul}".encode()).digest()


def tokens_per_step(settings: Settings, device: str) -> int:
    """The setting, or what suits the kind of device; every sequence gets a token at least."""
    if settings.max_tokens_per_step is not None:
        return settings.max_tokens_per_step
    return max(TOKENS_PER_STEP[device], settings.batch_size(device))


def limits_of(
    settings: Settings,
    num_tokens: int,
    max_positions: int,
    cache_tokens: int,
    max_batch_size: int = 1,
) -> Limits:
    """What a model and its memory can do, and what the settings allow."""
    return Limits(
        num_tokens=num_tokens,
        max_positions=max_positions,
        cache_tokens=cache_tokens,
        max_batch_size=max_batch_size,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_n=settings.max_n,
        max_sequences=settings.max_sequences,
        max_text_chars=settings.max_text_chars,
        # There are no more alternatives than rows of the head; ids without a token have one.
        max_logprobs=min(settings.max_logprobs, num_tokens),
        max_stop=settings.max_stop,
    )


def _too_large(checkpoint: Checkpoint, backend: Kernels) -> str:
    weights, free = int8_bytes(checkpoint.config) / 1e9, _free_bytes(backend.device) / 1e9
    return (
        f"{checkpoint.model_id} does not fit on the device: its weights take {weights:.1f} GB, and "
        f"{free:.1f} GB are free after the attempt; a smaller model, or lower settings kv_cache_gb "
        "(PYTHIA_KV_CACHE_GB), max_batch_size and max_tokens_per_step, need less"
    )


def _kernels(settings: Settings, config: ModelConfig, device: torch.device) -> Kernels:
    """The backend asked for; where none is, the fast and batch-invariant one of the device.

    Never another in its place: answers would depend on the batch, which must be asked for.
    """
    name: str = settings.backend
    if name == "auto":
        fastest = "triton" if device.type == "cuda" else "cpu"
        name = fastest if settings.matmul == "w8a16" else "reference"
    try:
        return kernels.create(name, config, device, settings.matmul)
    except (ImportError, RuntimeError, ValueError) as error:
        raise no_backend(settings, error) from None


def _num_blocks(settings: Settings, backend: Kernels, config: ModelConfig) -> int:
    """KV blocks: what was asked for, or a full batch of full contexts as far as memory allows."""
    block_bytes = backend.kv_bytes_per_block()
    if settings.kv_cache_gb is not None:
        return max(1, int(settings.kv_cache_gb * 10**9) // block_bytes)
    sequences = settings.batch_size(backend.device.type)
    full = sequences * -(-config.max_positions // backend.block_size)
    free = _free_bytes(backend.device)
    if backend.device.type == "cuda":
        tokens = tokens_per_step(settings, backend.device.type)
        free -= pass_bytes(config, sequences, tokens)
    spare = int(free * CACHE_SHARE[backend.device.type])
    return max(1, min(full, spare // block_bytes))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def _info(settings: Settings, checkpoint: Checkpoint, backend: Kernels) -> ModelInfo:
    name, *aliases = checkpoint.names
    weights = weights_sha256(checkpoint.files)
    commit = (checkpoint.commit or "local")[:12]
    provenance = Provenance(
        commit=checkpoint.commit,
        files=checkpoint.files,
        weights_sha256=weights,
        quantization=checkpoint.quantization,
        dtype="int8",
        matmul=backend.matmul,
        backend=backend.name,
        batch_invariant=backend.batch_invariant,
        version=__version__,
        same_weights=checkpoint.same_weights,
    )
    build = f"{__version__}-{commit}-{weights[:12]}-{sources_hash(backend.name)}"
    return ModelInfo(
        id=name,
        aliases=tuple(aliases),
        fingerprint=f"pythia-bento-{build}-{backend.name}-{backend.matmul}",
        created=int(checkpoint.tokenizer_path.stat().st_mtime),
        provenance=provenance,
    )
