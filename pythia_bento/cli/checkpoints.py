"""``pythia-bento pull | lock | verify | checkpoints | quantize``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_bento.catalog import ModelId, parse
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.cli.common import json_option, print_json
from pythia_bento.errors import InvalidRequest

if TYPE_CHECKING:
    from pythia_bento.checkpoints.branches import Branch

lock_option = click.option(
    "--lock",
    "lock_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("pythia.lock"),
    show_default=True,
    help="The lock file.",
)


@click.command()
@click.argument("models", nargs=-1, required=True)
@lock_option
def pull(models: tuple[str, ...], lock_path: Path) -> None:
    """Bring MODELS into BentoML's store, verified and in 8 bits.

    A model that the lock pins comes at its pinned commit. What is in the store already stays.
    """
    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.pull import pull as pull_model
    from pythia_bento.runtime.progress import ProgressBars

    lock = Lock.read(lock_path)
    for model in map(parse, models):
        with ProgressBars() as bars:
            pulled = pull_model(model, lock, bars)
        there = " was there already" if pulled.was_there else ""
        click.echo(f"{pulled.model.tag}{there}")
        _warn(model, pulled.model.origin.same_weights)


@click.command()
@click.argument("models", nargs=-1)
@lock_option
def lock(models: tuple[str, ...], lock_path: Path) -> None:
    """Pin MODELS, by default all that are pinned already, to what they are now."""
    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.resolve import make_pin

    pins = Lock.read(lock_path)
    if not (models or pins.models):
        raise InvalidRequest(f"{lock_path} pins no model yet; name one")
    for model in map(parse, models or pins.models):
        pin, before = make_pin(model), pins.get(model)
        pins = pins.pinning(model, pin)
        was = f", was {before.commit}" if before and before.commit != pin.commit else ""
        click.echo(f"{model} is {pin.commit}{was}")
    pins.write(lock_path)


@click.command()
@lock_option
@click.option("--offline", is_flag=True, help="Do not ask the hub whether branches have moved.")
def verify(lock_path: Path, offline: bool) -> None:
    """Compare lock, store and hub, to the byte; exit status 1 if there is any difference."""
    from huggingface_hub import constants

    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.resolve import verify as find_differences

    lines = find_differences(Lock.read(lock_path), not (offline or constants.is_offline_mode()))
    for line in lines:
        click.echo(line)
    if lines:
        raise click.exceptions.Exit(1)
    click.echo("no difference")


@click.command()
@click.argument("model")
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


@click.command()
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


def _warn(model: ModelId, same_weights: list[str]) -> None:
    if same_weights:
        others = ", ".join(same_weights)
        click.echo(f"warning: the weights of {model} are also those of {others}", err=True)


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

    table = Table("branch", "commit", "weights (sha256)", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("same weights as")
    for branch in branches:
        remark = "; ".join(_remarks(branch))
        table.add_row(branch.name, branch.commit, branch.weight_hash or "none", remark)
    console = Console(highlight=False)
    console.width = max(console.width, 180)  # hashes are to be copied whole
    console.print(table)
    flagged = sum(bool(branch.same_as or branch.shares_with) for branch in branches)
    console.print(f"{len(branches)} branches, {flagged} flagged")


def _remarks(branch: Branch) -> Iterator[str]:
    if branch.same_as:
        yield _shortened(branch.same_as)
    if branch.shares_with:
        yield f"in part {_shortened(branch.shares_with)}"


def _shortened(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
