"""Which checkpoints may be asked for, where their weights are, and orders to move these."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import translate
from typing import Any, TypedDict

from typing_extensions import NotRequired

from pythia_bento.catalog import TOKENS_PER_STEP
from pythia_bento.engine.residents import State
from pythia_bento.errors import InvalidRequest, PermissionDenied, shown
from pythia_bento.protocol.bodies import LoadRequest, UnloadRequest
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served_models import ModelState

_PATTERN = re.compile(r"[A-Za-z0-9_./@*?-]{0,256}")


class ShownModel(TypedDict):
    """One checkpoint, in the names that all transports use."""

    aliases: Sequence[str]
    step: int | None
    tokens_seen: int | None
    state: State
    pinned: bool
    nbytes: int
    last_used: float
    weights: str
    same_weights: Sequence[str]
    error: NotRequired[str]


async def states(runner: PythiaRunner, pattern: str = "") -> list[ModelState]:
    """The default, then those that stay on the device, then the others, each part by step.

    Of those with an id that a ``pattern`` fits: * is any characters, ? is one. Raises
    InvalidRequest.
    """
    if not _PATTERN.fullmatch(pattern):
        raise InvalidRequest(
            "pattern must have at most 256 characters, which are letters, digits, *, ? and ./@_-, "
            f"not {shown(pattern)}",
            param="pattern",
        )
    first, *others = await runner.models.states()
    found = [first, *sorted(others, key=lambda one: not one.residency.is_pinned)]
    if not pattern:
        return found
    fits = re.compile(translate(pattern)).match  # fnmatch would keep each of 32,768 patterns
    return [one for one in found if any(map(fits, (one.info.id, *one.info.aliases)))]


def shown_model(state: ModelState) -> ShownModel:
    """What is known of a checkpoint without loading it."""
    entry, residency, origin = state.entry, state.residency, state.info.provenance
    step = entry.step if entry else None
    shown: ShownModel = {
        "aliases": state.info.aliases,
        "step": step,
        "tokens_seen": None if step is None else step * TOKENS_PER_STEP,
        "state": residency.state,
        "pinned": residency.is_pinned,
        "nbytes": entry.nbytes if entry else 0,
        "last_used": residency.last_used,
        "weights": origin.weights_sha256 if origin else "",
        "same_weights": origin.same_weights if origin else (),
    }
    if residency.error is not None:
        shown["error"] = residency.error.message
    return shown


async def load(runner: PythiaRunner, body: LoadRequest) -> ModelState:
    """Bring a checkpoint to the device; raises PermissionDenied and what keeps it from there."""
    _check_allowed(runner)
    pin = body.pin
    if pin is None:
        pin = (await runner.models.state(body.model)).residency.is_pinned
    return await runner.models.load(body.model, is_pinned=pin)


async def unload(runner: PythiaRunner, body: UnloadRequest) -> ModelState:
    """Let a checkpoint leave the device, as soon as nothing of it runs; raises as ``load``."""
    _check_allowed(runner)
    return await runner.models.unload(body.model)


def _check_allowed(runner: PythiaRunner) -> None:
    if not runner.settings.manage_models:
        raise PermissionDenied(
            "this server loads and unloads checkpoints by itself; PYTHIA_MANAGE_MODELS lets "
            "callers order it to"
        )


def provenance(state: ModelState) -> dict[str, Any] | None:
    """Which bytes answer, and by what arithmetic, where that is known."""
    origin = state.info.provenance
    return None if origin is None else asdict(origin)
