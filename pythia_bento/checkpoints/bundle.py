"""The checkpoint that comes with the package: its steps, from the manifest beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_bento.catalog import BUNDLED, MAIN, ModelId, nearest_steps
from pythia_bento.checkpoints.files import FileHash, Hashes
from pythia_bento.errors import CheckpointError, ModelNotFound

BUNDLED_ROOT = Path(__file__).parent / BUNDLED
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class BundledStep:
    """One training step of the bundled checkpoint."""

    step: str  # "step3000"
    commit: str  # 40 hex digits, a hash of the files
    directory: Path
    files: Hashes
    is_main: bool

    @property
    def model_id(self) -> str:
        """What ``load_checkpoint`` takes."""
        return f"{BUNDLED}@{self.step}"

    @property
    def nbytes(self) -> int:
        """Size of all files."""
        return sum(file.size or 0 for file in self.files.values())


def list_bundled(root: Path = BUNDLED_ROOT) -> list[BundledStep]:
    """The steps in the manifest, in training order. Raises CheckpointError without a manifest."""
    try:
        raw = json.loads((root / MANIFEST).read_text())
        steps = [_step(root, name, entry, raw["main"]) for name, entry in raw["steps"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{root / MANIFEST} cannot be read: {error!r}") from None
    return sorted(steps, key=lambda step: _number(step.step))


def find_bundled(revision: str, root: Path = BUNDLED_ROOT) -> BundledStep:
    """The step named by ``main``, a step or a commit; ModelNotFound names the nearest ones."""
    steps = list_bundled(root)
    for step in steps:
        if revision in (step.step, step.commit) or (revision == MAIN and step.is_main):
            return step
    names = [step.step for step in steps]
    wanted = ModelId(BUNDLED, revision).step
    if wanted is None:
        hint = f"it has {MAIN}, {', '.join(names)}"
    else:
        nearest = nearest_steps(wanted, map(_number, names))
        hint = f"the nearest steps are {', '.join(nearest)}"
    raise ModelNotFound(f"{BUNDLED} has no revision {revision[:100]!r}; {hint}", param="model")


def _step(root: Path, name: str, entry: dict[str, Any], main: str) -> BundledStep:
    files = {file: FileHash(**facts) for file, facts in entry["files"].items()}
    return BundledStep(name, entry["commit"], root / name, files, name == main)


def _number(step: str) -> int:
    return int(step.removeprefix("step"))
