"""Bodies of JSON."""

from __future__ import annotations

import json
from typing import Any

from pythia_bento.errors import InvalidRequest


def dumps(body: Any) -> bytes:
    """A body; raises InvalidRequest for what JSON cannot hold."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None
