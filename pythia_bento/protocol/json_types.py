"""Types of answers, from the JSON that names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pythia_bento.protocol.types import Token, TopToken


def tokens_of(told: Iterable[Mapping[str, Any]]) -> tuple[Token, ...]:
    """Tokens with their log-probabilities; a server may be newer and say more."""
    return tuple(
        Token(
            id=token["id"],
            text=token["text"],
            logprob=token["logprob"],
            top=tuple(
                TopToken(top["id"], top["text"], top["logprob"]) for top in token.get("top", ())
            ),
        )
        for token in told
    )
