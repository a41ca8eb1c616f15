"""Tables as a sweep writes them, with figures that are easy to tell apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.columns import of_checkpoint
from pythia_bento.sweep.events import Checkpoint, Row
from pythia_bento.sweep.table import Metadata, TableFile, place_of

STEPS = (0, 1, 16, 512, 143_000)


def row(item: int, **others: Any) -> Row:
    """Two tokens; at step 0 their log-probability is -(item + 1)."""
    if isinstance(error := others.pop("error", None), str):
        others["error"] = InvalidRequest(error)
    return Row(
        **{
            **{"checkpoint": 0, "item": item, "id": f"text {item}", "num_tokens": 2},
            **{"logprob": -float(item + 1), "ranks": (1 + item, 4 * (1 + item))},
            **others,
        }
    )


def put(
    folder: Path, model: str, step: int | None, rows: list[Row], suffix: str = "parquet"
) -> Path:
    """The file of one checkpoint."""
    id = f"{model}@main" if step is None else f"{model}@step{step}"
    checkpoint = Checkpoint(0, id, step, None, None, "weights", "fingerprint")
    metadata = Metadata("key", "weights", "fingerprint", None, (), len(rows))
    path = folder / place_of(id, suffix)
    file = TableFile(path, of_checkpoint(checkpoint), metadata, 0)
    for one in rows:
        file.add(one)
    file.finish()
    return path


def put_all(
    folder: Path,
    models: tuple[str, ...] = ("pythia-14m",),
    items: int = 3,
    suffix: str = "parquet",
) -> Path:
    """A whole sweep, in which texts become likelier from step to step."""
    for model in models:
        for step in STEPS:
            rows = [row(item) for item in range(items)]
            later = [replace(one, logprob=(one.logprob or 0) / (1 + step)) for one in rows]
            put(folder, model, step, later, suffix)
    return folder
