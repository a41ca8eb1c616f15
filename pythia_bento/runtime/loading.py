"""From settings to an engine: checkpoint, device, kernels, memory."""

from __future__ import annotations

import logging
from functools import partial

import torch

from pythia_bento import __version__
from pythia_bento.catalog import int8_bytes
from pythia_bento.checkpoints.checkpoint import Checkpoint, find_checkpoint
from pythia_bento.checkpoints.shelf import Shelf, entry_of
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.guides import grammars_of
from pythia_bento.engine.members import Loaded
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits
from pythia_bento.executor import MakeExecutor, make_executor
from pythia_bento.executor.out_of_memory import is_out_of_memory
from pythia_bento.model import kernels
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import Kernels, pass_bytes
from pythia_bento.model.kernels.gpu.slab import outline
from pythia_bento.runtime.loader import ThreadLoader
from pythia_bento.runtime.memory_plan import free_bytes, host_slabs, plan
from pythia_bento.runtime.model_info import ModelInfo, Progress, Provenance
from pythia_bento.runtime.opener import Opener
from pythia_bento.runtime.preflight import check_matmul, check_models, find_device, no_backend
from pythia_bento.runtime.served_models import pinned, shelf_of
from pythia_bento.runtime.sources import sources_hash
from pythia_bento.settings import Settings, SettingsError

logger = logging.getLogger(__name__)
# It warns on import of a package for 4-bit weights that is missing; nothing here uses those.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Tokens in a step where nobody says how many: on a GPU larger passes cost less a token, see
# docs/gpu.md; on a CPU they only keep others waiting.
TOKENS_PER_STEP = {"cuda": 2048, "cpu": 512}
# On a GPU, steps that nobody waits for between two tokens are so many times as large, as far as
# their activations take no more than this share of the free memory.
PROMPT_STEPS, PROMPT_STEP_SHARE = (4, 2), 0.02


def load_engine(
    settings: Settings, on_progress: Progress, make: MakeExecutor = make_executor
) -> tuple[Engine | EngineGroup, ModelInfo]:
    """A group where other checkpoints may be asked for, else an engine of the one.

    Raises CheckpointError, ModelNotFound or SettingsError.
    """
    check_matmul(settings)
    check_models(settings)
    device = find_device(settings)
    checkpoint = find_checkpoint(settings.model)
    if checkpoint.same_weights:
        others = ", ".join(checkpoint.same_weights)
        logger.warning("the weights of %s are also those of %s", settings.model, others)
    backend = _kernels(settings, checkpoint.config, device)
    entry = entry_of(checkpoint)
    shelf = shelf_of(settings, entry)
    info = _info(shelf.default if shelf else entry, backend)
    try:
        engine = _build(settings, checkpoint, info, shelf, backend, on_progress, make)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SettingsError(_too_large(checkpoint, backend)) from None
    return engine, info


def _build(
    settings: Settings,
    checkpoint: Checkpoint,
    info: ModelInfo,
    shelf: Shelf | None,
    backend: Kernels,
    on_progress: Progress,
    make: MakeExecutor,
) -> Engine | EngineGroup:
    """Everything that takes much memory."""
    tokenizer = Tokenizer.from_bytes(checkpoint.tokenizer, checkpoint.tokenizer_path)
    grammars_of(tokenizer).warm()
    loading = partial(on_progress, f"loading {checkpoint.model_id}")
    model = GPTNeoX(checkpoint.source, backend, loading)
    if backend.has_own_threads:
        torch.set_num_threads(1)
    tokens = tokens_per_step(settings, backend.device.type)
    most = tokens_per_prompt_step(settings, backend, tokens)
    sizes = plan(settings, backend, max(tokens, most), shelf)
    config = EngineConfig(
        num_blocks=sizes.num_blocks,
        max_batch_size=settings.batch_size(backend.device.type),
        max_tokens_per_step=tokens,
        max_tokens_per_prompt_step=most,
        speculates=speculates(settings, backend),
    )
    preparing = partial(on_progress, f"preparing {checkpoint.model_id}")
    limits = limits_of(
        settings,
        num_tokens=tokenizer.num_tokens,
        max_positions=checkpoint.config.max_positions,
        cache_tokens=config.num_blocks * backend.block_size,
        max_batch_size=config.max_batch_size,
        config=checkpoint.config,
    )
    if shelf is None:
        executor = make(model, config, tokenizer.num_tokens, preparing)
        return Engine(executor, tokenizer, limits, info.root)
    model.weights = backend.contiguous(model.weights, bytes.fromhex(shelf.default.weights))
    executor = make(model, config, tokenizer.num_tokens, preparing)
    packer = kernels.create(
        backend.name, backend.config, backend.device, backend.matmul, is_for_packing=True
    )
    host = host_slabs(settings, model.weights, backend.device)
    shape = outline(model.weights) if model.weights.slab else None
    opener = Opener(packer, info, tokenizer, host, shape)
    group = EngineGroup(
        executor,
        Loaded(model.weights, tokenizer, info.root),
        limits,
        ThreadLoader(opener.load, host, opener.ahead),
        default_key=shelf.default.weights,
        default_entry=shelf.default,
        capacity=sizes.capacity,
        turn_seconds=settings.turn_ms / 1000,
        max_cold=settings.max_cold,
    )
    _pin(group, shelf, settings, sizes.capacity)
    return group


def _pin(group: EngineGroup, shelf: Shelf, settings: Settings, capacity: int) -> None:
    """What the settings say is never to leave the device; raises SettingsError."""
    entries = {entry.weights: entry for entry in (shelf.default, *pinned(settings, shelf))}
    if len(entries) >= capacity:
        raise SettingsError(
            f"setting pinned (PYTHIA_PINNED) keeps {len(entries)} checkpoints on the device, which "
            f"holds {capacity}: there is no place for others that PYTHIA_MODELS asks for"
        )
    for key, entry in entries.items():
        group.introduce(key, entry)
        group.pin(key, is_pinned=True)


def tokens_per_step(settings: Settings, device: str) -> int:
    """The setting, or what suits the kind of device; every sequence gets a token at least."""
    if settings.max_tokens_per_step is not None:
        return settings.max_tokens_per_step
    return max(TOKENS_PER_STEP[device], settings.batch_size(device))


def tokens_per_prompt_step(settings: Settings, backend: Kernels, tokens: int) -> int:
    """The same of steps that nobody waits for between two tokens; other steps have ``tokens``.

    Where nobody says, what such passes take beyond others is a small part of a GPU's free memory.
    """
    if settings.max_tokens_per_prompt_step is not None:
        return settings.max_tokens_per_prompt_step
    if backend.device.type != "cuda":
        return tokens
    sequences, free = settings.batch_size("cuda"), free_bytes(backend.device)
    for times in PROMPT_STEPS:
        most = times * tokens
        more = pass_bytes(backend.config, sequences, most)
        more -= pass_bytes(backend.config, sequences, tokens)
        if more <= free * PROMPT_STEP_SHARE:
            return most
    return tokens


def speculates(settings: Settings, backend: Kernels) -> bool:
    """Whether the engine drafts tokens: where the setting says so and it can change no answer."""
    if settings.speculate == "off":
        return False
    if backend.device.type == "cpu" and backend.batch_invariant:
        return True
    logger.warning(
        "PYTHIA_SPECULATE=%s is off here: %s",
        settings.speculate,
        "steps of a GPU do not wait for the tokens that drafts are made of"
        if backend.batch_invariant
        else "answers of this backend depend on what is computed beside them",
    )
    return False


def limits_of(
    settings: Settings,
    num_tokens: int,
    max_positions: int,
    cache_tokens: int,
    max_batch_size: int = 1,
    config: ModelConfig | None = None,
) -> Limits:
    """What a model and its memory can do, and what the settings allow."""
    return Limits(
        num_tokens=num_tokens,
        max_positions=max_positions,
        cache_tokens=cache_tokens,
        max_batch_size=max_batch_size,
        config=config,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_n=settings.max_n,
        max_sequences=settings.max_sequences,
        max_text_chars=settings.max_text_chars,
        # There are no more alternatives than rows of the head; ids without a token have one.
        max_logprobs=min(settings.max_logprobs, num_tokens),
        max_stop=settings.max_stop,
    )


def _too_large(checkpoint: Checkpoint, backend: Kernels) -> str:
    weights, free = int8_bytes(checkpoint.config) / 1e9, free_bytes(backend.device) / 1e9
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


def _info(entry: ShelfEntry, backend: Kernels) -> ModelInfo:
    arithmetic = Provenance(
        commit=None,
        files={},
        weights_sha256="",
        quantization="",
        dtype="int8",
        matmul=backend.matmul,
        backend=backend.name,
        batch_invariant=backend.batch_invariant,
        version=__version__,
    )
    nothing = ModelInfo("", provenance=arithmetic, sources=sources_hash(backend.name))
    return nothing.of(entry)
