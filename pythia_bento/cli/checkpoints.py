"""``pythia-bento lock | verify | checkpoints | quantize``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_bento.catalog import parse
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.cli.common import json_option, lock_option, model_names, print_json, shortened
from pythia_bento.errors import InvalidRequest

if TYPE_CHECKING:
    from pythia_bento.checkpoints.branches import Branch

WHOLE_WIDTH = 180  # columns in which hashes can be copied whole
SHORT_HASH = 12  # digits of one where there is less room


@click.command(short_help="Pin MODELS to what they are now.")
@click.argument("models", nargs=-1, shell_complete=model_names)
@lock_option
@json_option
def lock(models: tuple[str, ...], lock_path: Path, as_json: bool) -> None:
    """Pin MODELS, by default all that are pinned already, to what they are now."""
    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.resolve import make_pin

    pins, entries = Lock.read(lock_path), []
    if not (models or pins.models):
        raise InvalidRequest(f"{lock_path} pins no model yet; name one")
    for model in map(parse, models or pins.models):
        pin, before = make_pin(model), pins.get(model)
        pins = pins.pinning(model, pin)
        was = before.commit if before else None
        entries.append({"model": str(model), "commit": pin.commit, "was": was})
        if not as_json:
            changed = f", was {was}" if was not in (None, pin.commit) else ""
            click.echo(f"{model} is {pin.commit}{changed}")
    pins.write(lock_path)
    if as_json:
        print_json(entries)


@click.command(short_help="Compare lock, store and hub, to the byte.")
@lock_option
@click.option("--offline", is_flag=True, help="Do not ask the hub whether branches have moved.")
@json_option
def verify(lock_path: Path, offline: bool, as_json: bool) -> None:
    """Compare lock, store and hub, to the byte; exit status 1 if there is any difference.

    Where the lock pins nothing and the store is empty the exit status is 2.
    """
    from huggingface_hub import constants

    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.resolve import verify as find_differences
    from pythia_bento.checkpoints.store import stored_models

    lock = Lock.read(lock_path)
    lines = find_differences(lock, not (offline or constants.is_offline_mode()))
    if not (lines or lock.models or any(True for _ in stored_models())):
        raise InvalidRequest(f"nothing to verify: {lock_path} pins no model, and none was pulled")
    if as_json:
        print_json({"differences": lines})
    else:
        click.echo("\n".join(lines) or "no difference")
    if lines:
        raise click.exceptions.Exit(1)


@click.command(short_help="List the steps of MODEL, and which are the same.")
@click.argument("model", shell_complete=model_names)
@json_option
def checkpoints(model: str, as_json: bool) -> None:
    """List the steps of MODEL on the hub, and which of them hold the same weights."""
    from pythia_bento.checkpoints.branches import list_branches
    from pythia_bento.runtime.progress import ProgressBars

    with ProgressBars() as bars:
        branches = list_branches(parse(model), bars)
    if as_json:
        print_json([_entry(branch) for branch in branches])
    else:
        _print_table(branches)


@click.command(short_help="Write a checkpoint in 8 bits.")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def quantize(source: Path, target: Path) -> None:
    """Write the checkpoint in directory SOURCE in 8 bits to the new directory TARGET."""
    from pythia_bento.checkpoints.quantize import CheckpointWeights
    from pythia_bento.checkpoints.save import save_int8
    from pythia_bento.checkpoints.workspace import disk_errors
    from pythia_bento.runtime.progress import ProgressBars

    weights = CheckpointWeights(source, read_config(source / "config.json"))
    with ProgressBars() as bars, disk_errors(str(target)):
        save_int8(weights, source, target, lambda done, total: bars("quantising", done, total))


def _entry(branch: Branch) -> dict[str, Any]:
    return {
        "branch": branch.name,
        "step": branch.step,
        "commit": branch.commit,
        "weights_sha256": branch.weight_hash,
        "files": branch.weights,
        "same_as": branch.same_as,
        "shares_with": branch.shares_with,
    }


def _print_table(branches: list[Branch]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WHOLE_WIDTH)
    shown = None if console.width >= WHOLE_WIDTH else SHORT_HASH
    table = Table("branch", "commit", "weights (sha256)", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("same weights as")
    for branch in branches:
        hashes = (branch.commit, branch.weight_hash or "none")
        remark = "; ".join(_remarks(branch))
        table.add_row(branch.name, *(text[:shown] for text in hashes), remark)
    console.print(table)
    flagged = sum(bool(branch.same_as or branch.shares_with) for branch in branches)
    whole = f"; hashes are whole with --json, or {WHOLE_WIDTH} columns" if shown else ""
    console.print(f"{len(branches)} branches, {flagged} flagged{whole}")


def _remarks(branch: Branch) -> Iterator[str]:
    if branch.same_as:
        yield shortened(branch.same_as)
    if branch.shares_with:
        yield f"in part {shortened(branch.shares_with)}"
