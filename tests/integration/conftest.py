"""What the integration tests share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub.utils import close_session

from tests.hub import HubServer
from tests.hub.places import bentoml_places, client_places
from tests.models import random_checkpoint

if TYPE_CHECKING:
    import httpx

    from pythia_bento.runtime.runner import PythiaRunner


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with hub_in(tmp_path) as server:
        yield server


@contextlib.contextmanager
def hub_in(folder: Path) -> Iterator[HubServer]:
    """A hub on loopback that huggingface_hub talks to, with empty caches of its own."""
    with HubServer(folder / "hub") as server, pytest.MonkeyPatch.context() as patch:
        for holder, name, value in client_places(server.endpoint, folder / "hf"):
            patch.setattr(holder, name, value)
        patch.delenv("HF_TOKEN", raising=False)
        yield server
        close_session()


@pytest.fixture
def bento_home(tmp_path: Path) -> Iterator[Path]:
    with bento_home_in(tmp_path) as home:
        yield home


@contextlib.contextmanager
def bento_home_in(folder: Path) -> Iterator[Path]:
    """An empty BentoML home."""
    home = folder / "bentoml"
    places = bentoml_places(home)
    for provider, place in places.items():
        provider.set(place)
    try:
        yield home
    finally:
        for provider in places:
            provider.reset()


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small checkpoints as repositories hold them: ``a`` and ``b``, with much beside the weights.

    Like EleutherAI's repositories they also hold pickles, which must never be downloaded.
    """
    root = tmp_path_factory.mktemp("sources")
    for seed, name in enumerate("ab"):
        path = random_checkpoint(root / name, heads=2, head_dim=16, seed=seed)
        (path / "README.md").write_text("# a model card")
        (path / "tokenizer_config.json").write_text("{}")
        for pickle in ("pytorch_model.bin", "optimizer.pt"):
            (path / pickle).write_bytes(b"\x80 never download this")
    return root


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    """Of the bundled model, whose inside may be asked for within small limits."""
    from tests.integration.inside import shown  # most files need no server

    with shown() as runner:
        yield runner


@pytest.fixture
async def http(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    """Who asks its routes, without a socket."""
    from tests.integration.inside import client_of

    async with client_of(runner) as client:
        yield client
