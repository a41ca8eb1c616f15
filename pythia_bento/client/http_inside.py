"""``/v1/activations`` and ``/v1/patch``: tensors out beside JSON, a file of tensors back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pythia_bento.client.http_json import dumps
from pythia_bento.client.inside import Asked
from pythia_bento.client.patches import PatchGrid, grid
from pythia_bento.client.transport import Operation
from pythia_bento.protocol import tensors
from pythia_bento.protocol.activations import Activations, read

SAFETENSORS = "application/vnd.safetensors"


def activations(asked: Asked) -> Operation[Activations]:
    """``POST /v1/activations``. Raises InvalidRequest for what JSON cannot hold."""
    request: bytes | dict[str, Any] = dumps(asked.fields)
    if asked.tensors:
        file = b"".join(tensors.write(asked.tensors))
        request = {
            "request": (None, request, "application/json"),
            "tensors": ("tensors.safetensors", file, SAFETENSORS),
        }
    return Operation("/v1/activations", request, lambda body: read(body, asked.names))


def patch(asked: Asked) -> Operation[PatchGrid]:
    """``POST /v1/patch``. Raises InvalidRequest for what JSON cannot hold."""
    return Operation("/v1/patch", dumps(asked.fields), _grid_of(asked))


def _grid_of(asked: Asked) -> Callable[[bytes], PatchGrid]:
    return lambda body: grid(json.loads(body), asked.fields)
