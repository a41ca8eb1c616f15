"""What tests of sweeps over the bundled steps share."""

from __future__ import annotations

import json
import random
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pythia_bento.checkpoints.bundle import BUNDLED_ROOT, MANIFEST, list_bundled
from pythia_bento.checkpoints.shelf import Shelf
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime import loading, served_models
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.sweep import at_hand
from pythia_bento.sweep.events import Event, Row
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepSpec

NAMES = [step.model_id for step in list_bundled()]
WORDS = re.findall(
    r"\w+|[^\w\s]",
    "Once upon a time there was a small house near the river and Anna had five apples. She gave "
    "two of them to Tom, who lived in a lake; what color is the sky? It is blue",
)


def texts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Items of all kinds: whole texts and continuations, text and ids."""
    rng = random.Random(seed)
    items: list[dict[str, Any]] = []
    for number in range(count):
        prompt: Any = " ".join(rng.choices(WORDS, k=rng.randrange(2, 40)))
        if number % 5 == 4:
            prompt = [rng.randrange(5, 990) for _ in range(rng.randrange(1, 60))]
        items.append({"id": f"text {number}", "prompt": prompt})
        if number % 3 == 0:
            items[-1]["continuation"] = " " + " ".join(rng.choices(WORDS, k=3))
    return items


def sequences(count: int, tokens: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(5, 990) for _ in range(tokens)] for _ in range(count)]


async def swept(runner: PythiaRunner, **fields: Any) -> list[Event]:
    spec = parse(SweepSpec, fields)
    return [event async for event in run(spec, Here(runner))]


def rows(events: list[Event], checkpoint: int) -> list[Row]:
    found = [e for e in events if isinstance(e, Row) and e.checkpoint == checkpoint]
    return sorted(found, key=lambda row: row.item)


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled steps, which a test may damage or add to."""
    root = tmp_path / "steps"
    shutil.copytree(BUNDLED_ROOT, root)
    monkeypatch.setattr(served_models, "Shelf", partial(Shelf, bundled_root=root))
    monkeypatch.setattr(at_hand, "BUNDLED_ROOT", root)
    find = partial(loading.find_checkpoint, bundled_root=root)
    monkeypatch.setattr(loading, "find_checkpoint", find)
    return root


def copy_step(root: Path, step: str, name: str) -> None:
    """The same weights under another name."""
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["steps"][name] = manifest["steps"][step] | {"commit": "ab" * 20}
    (root / MANIFEST).write_text(json.dumps(manifest))
    shutil.copytree(root / step, root / name)


def damage(root: Path, step: str) -> None:
    weights = root / step / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
