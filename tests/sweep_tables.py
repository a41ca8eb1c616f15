"""Tables as a sweep writes them, with figures that are easy to tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet

SCHEMA = pyarrow.schema(
    {
        "model": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "revision": pyarrow.string(),
        "step": pyarrow.int64(),
        "item": pyarrow.int64(),
        "id": pyarrow.string(),
        "logprob": pyarrow.float64(),
        "num_tokens": pyarrow.int32(),
        "ranks": pyarrow.list_(pyarrow.int32()),
        "extractable": pyarrow.bool_(),
        "error": pyarrow.string(),
    }
)
STEPS = (0, 1, 16, 512, 143_000)


def row(model: str, step: int | None, item: int, **others: Any) -> dict[str, Any]:
    """A row of two tokens whose log-probability is -(item + 1) at step 0, and nearer to 0 later."""
    found = {
        **dict.fromkeys(SCHEMA.names),
        **{"model": model, "revision": "main" if step is None else f"step{step}"},
        **{"step": step, "item": item, "id": f"text {item}", "num_tokens": 2},
        "logprob": -float(item + 1) / (1 + (step or 0)),
        "ranks": [1 + item, 4 * (1 + item)],
    }
    return found | others


def write(folder: Path, model: str, step: int | None, rows: list[dict[str, Any]]) -> Path:
    """A file of one checkpoint."""
    name = "main" if step is None else f"step={step:06}"
    path = folder / f"model={model}" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, SCHEMA), path)
    return path


def write_lines(folder: Path, model: str, step: int, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"model={model}" / f"step={step:06}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in rows))
    return path


def write_all(folder: Path, models: tuple[str, ...] = ("pythia-14m",), items: int = 3) -> Path:
    """A whole sweep."""
    for model in models:
        for step in STEPS:
            write(folder, model, step, [row(model, step, item) for item in range(items)])
    return folder
