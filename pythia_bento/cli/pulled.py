"""``pythia-bento list --pulled``: what the store has, a line for each model with all its steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pythia_bento.catalog import ORGANISATION, STEPS, ModelId
from pythia_bento.cli.common import print_json

if TYPE_CHECKING:
    from pythia_bento.checkpoints.stored_model import StoredModel


def list_pulled(as_json: bool) -> None:
    """Print it; the files of the models are not looked at."""
    from pythia_bento.checkpoints.store import stored_models

    models = sorted(stored_models(), key=_place)
    if as_json:
        print_json([_entry(model) for model in models])
    else:
        _print_table(models)


def _id(model: StoredModel) -> ModelId:
    origin = model.origin
    return ModelId(origin.repository.removeprefix(f"{ORGANISATION}/"), origin.revision)


def _place(model: StoredModel) -> tuple[str, bool, int, str]:
    """By name, steps in the order of training before all else."""
    id = _id(model)
    return id.name, id.step is None, id.step or 0, id.revision


def _entry(model: StoredModel) -> dict[str, Any]:
    id, origin = _id(model), model.origin
    return {
        "model": str(id),
        "step": id.step,
        "tag": model.tag,
        "commit": origin.commit,
        "bytes": sum(model.sizes.values()),
        "files": {name: facts.sha256 for name, facts in origin.files.items()},
        "same_weights": origin.same_weights,
    }


def _print_table(models: Sequence[StoredModel]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pythia_bento.checkpoints.store import nbytes

    by_name: dict[str, list[StoredModel]] = defaultdict(list)
    for model in models:
        by_name[_id(model).name].append(model)
    console = Console(highlight=False)
    table = Table("model", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("pulled", "8-bit MB"):
        table.add_column(column, justify="right")
    table.add_column("revisions")
    for name, found in by_name.items():
        revisions = described([_id(model) for model in found])
        table.add_row(name, str(len(found)), f"{nbytes(found) / 1e6:,.1f}", revisions)
    console.print(table)
    console.print(f"{len(models)} in the store, {nbytes(models) / 1e6:,.1f} MB")


def described(ids: Sequence[ModelId]) -> str:
    """Revisions in few words: steps that follow each other in the suite are ``first-last``."""
    runs: list[list[int]] = []
    following = dict(pairwise(STEPS))
    for step in sorted(id.step for id in ids if id.step is not None):
        if runs and following.get(runs[-1][-1]) == step:
            runs[-1].append(step)
        else:
            runs.append([step])
    steps = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    others = [id.revision[:12] if id.is_commit else id.revision for id in ids if id.step is None]
    return ", ".join([*([f"step {', '.join(steps)}"] if steps else []), *others])
