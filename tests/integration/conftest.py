"""What the integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from tests.hub import HubServer
from tests.models import random_checkpoint


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback that huggingface_hub talks to, with empty caches of its own."""
    home = tmp_path / "hf"
    with HubServer(tmp_path / "hub") as server:
        # The library reads its environment once, on import.
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HOME", str(home))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        # Pieces that are not full are lost when a connection breaks: 10 MB would be all there is.
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16 * 1024)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server
        close_session()


@pytest.fixture
def bento_home(tmp_path: Path) -> Iterator[Path]:
    """An empty BentoML home."""
    home = tmp_path / "bentoml"
    models = home / "models"
    models.mkdir(parents=True)
    # BentoML reads its environment once; these are its ways to say otherwise.
    places = {
        BentoMLContainer.bentoml_home: str(home),
        BentoMLContainer.model_store_dir: str(models),
        BentoMLContainer.model_store: ModelStore(models),
    }
    for provider, place in places.items():
        provider.set(place)
    yield home
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
