"""The engine of one checkpoint, whatever the settings say of others."""

from __future__ import annotations

from pythia_bento.engine.engine import Engine
from pythia_bento.executor import MakeExecutor
from pythia_bento.runtime import loading
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.settings import Settings


def load_alone(settings: Settings, make: MakeExecutor | None = None) -> tuple[Engine, ModelInfo]:
    """By ``load_engine``, or what stands in its place (``bench.serving.instant``)."""
    alone = settings.model_copy(update={"models": ""})
    executor = {} if make is None else {"make": make}
    engine, info = loading.load_engine(alone, lambda what, done, total: None, **executor)
    assert isinstance(engine, Engine)
    return engine, info
