"""Where huggingface_hub and BentoML keep things; both read their environment once, on import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from huggingface_hub import constants


def client_places(endpoint: str, home: Path) -> list[tuple[Any, str, Any]]:
    """(holder, attribute, value) of what HF_ENDPOINT and HF_HOME would have set."""
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    values = {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        # Pieces that are not full are lost when a connection breaks: 10 MB would be all there is.
        "DOWNLOAD_CHUNK_SIZE": 16 * 1024,
    }
    return [(constants, name, value) for name, value in values.items()]


def bentoml_places(home: Path) -> dict[Any, Any]:
    """provider -> what BENTOML_HOME would have made it give."""
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    return {
        BentoMLContainer.bentoml_home: str(home),
        BentoMLContainer.model_store_dir: str(models),
        BentoMLContainer.model_store: ModelStore(models),
    }
