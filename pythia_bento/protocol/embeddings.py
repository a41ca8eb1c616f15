"""What clients may send for embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictStr

from pythia_bento.protocol.bodies import Prompts
from pythia_bento.protocol.sampling import Body, Integer


class EmbeddingsRequest(Body):
    """OpenAI's ``/v1/embeddings``; ``pooling``, ``normalize`` and ``priority`` are additions."""

    input: Prompts
    model: StrictStr | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Integer | None = None
    """The model's width, or left out: no part of a hidden state stands for all of it."""
    user: StrictStr | None = None
    pooling: Literal["mean", "last"] = "mean"
    normalize: StrictBool = True
    """Whether each is given the length 1, as OpenAI's have."""
    priority: Annotated[Integer, Field(ge=-20, le=20)] = 0
