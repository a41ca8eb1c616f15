"""The columns of a sweep's tables, whatever format holds them."""

from __future__ import annotations

from typing import Any, Literal

from pythia_bento.catalog import MAIN, ModelId
from pythia_bento.sweep.events import Checkpoint, Row

Kind = Literal[
    "dictionary",
    "string",
    "int64",
    "int32",
    "bool",
    "float64",
    "float32",
    "int32s",
    "float32s",
]
Values = tuple[Any, ...]  # one for each column

COLUMNS: dict[str, Kind] = {
    "model": "dictionary",
    "revision": "string",
    "step": "int64",
    "tokens_seen": "int64",
    "item": "int64",
    "id": "string",
    "logprob": "float64",
    "num_tokens": "int32",
    "greedy_tokens": "int32",
    "is_greedy": "bool",
    "token_ids": "int32s",
    "logprobs": "float32s",
    "ranks": "int32s",
    "text": "string",
    "finish_reason": "string",
    "matched": "int32",
    "extractable": "bool",
    "share": "float32",
    "error": "string",
}
_OF_ROW = tuple(COLUMNS)[4:-1]  # the first are equal in all rows of a file


def model_id(text: str) -> ModelId:
    """An id by its parts, whether or not there is such a model."""
    name, _, revision = text.partition("@")
    return ModelId(name, revision or MAIN)


def of_checkpoint(checkpoint: Checkpoint) -> Values:
    """What all of its rows begin with."""
    model = model_id(checkpoint.model)
    return model.name, model.revision, checkpoint.step, checkpoint.tokens_seen


def of_row(first: Values, row: Row) -> Values:
    """All of a row; of an error the sentence."""
    error = None if row.error is None else row.error.message
    return (*first, *(getattr(row, name) for name in _OF_ROW), error)
