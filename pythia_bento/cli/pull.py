"""``pythia-bento pull``: models one by one, or many training steps of one at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_bento import catalog
from pythia_bento.catalog import ModelId, parse
from pythia_bento.cli.common import json_option, lock_option, model_names, print_json, shortened
from pythia_bento.errors import InvalidRequest, PythiaError

if TYPE_CHECKING:
    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.plan import Plan, Step
    from pythia_bento.checkpoints.pull import Pulled

MAX_JOBS = 16
DEFAULT_JOBS = 2


@click.command()
@click.argument("models", nargs=-1, required=True, shell_complete=model_names)
@click.option(
    "--steps", metavar="STEPS", help="all, log, a list as 0,1,512, or FROM:TO:BY of one MODEL."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    help=f"Downloads at a time with --steps.  [default: {DEFAULT_JOBS}]",
)
@click.option("--dry-run", is_flag=True, help="With --steps, only say what it would take.")
@lock_option
@json_option
def pull(
    models: tuple[str, ...],
    steps: str | None,
    jobs: int | None,
    dry_run: bool,
    lock_path: Path,
    as_json: bool,
) -> None:
    """Bring MODELS into BentoML's store, verified and in 8 bits.

    A model that the lock pins comes at its pinned commit. What is in the store already stays. With
    --steps the exit status is 1 if one of the steps is missing or failed; the others are there.
    """
    from pythia_bento.checkpoints.lock import Lock

    lock, asked = Lock.read(lock_path), [parse(model) for model in models]
    if steps is None:
        if dry_run or jobs is not None:
            raise InvalidRequest("--jobs and --dry-run go with --steps")
        _pull_each(asked, lock, as_json)
        return
    model = _of_steps(asked)
    failed = (
        _show(model, steps, lock, jobs or DEFAULT_JOBS, as_json)
        if dry_run
        else _pull_steps(model, steps, lock, jobs or DEFAULT_JOBS, as_json)
    )
    if failed:
        raise click.exceptions.Exit(1)


def _of_steps(asked: list[ModelId]) -> ModelId:
    if len(asked) > 1 or asked[0].revision != catalog.MAIN:
        names = " ".join(map(str, asked))[:200]
        raise InvalidRequest(f"--steps takes one model without a revision, not {names}")
    return asked[0]


def _pull_each(asked: list[ModelId], lock: Lock, as_json: bool) -> None:
    from pythia_bento.checkpoints.pull import pull as pull_model
    from pythia_bento.runtime.progress import ProgressBars

    entries = []
    for model in asked:
        with ProgressBars() as bars:
            pulled = pull_model(model, lock, bars, bars.bytes)
        entries.append(_entry(model, pulled))
        if not as_json:
            _print(model, pulled)
    if as_json:
        print_json(entries)


def _pull_steps(model: ModelId, steps: str, lock: Lock, jobs: int, as_json: bool) -> bool:
    """Whether any of them failed."""
    from pythia_bento.checkpoints.hub_errors import DiskFull
    from pythia_bento.checkpoints.plan import make_plan
    from pythia_bento.checkpoints.pull_steps import pull_steps
    from pythia_bento.runtime.progress import ProgressBars

    with ProgressBars() as bars:
        plan = make_plan(model, steps, lock, bars)
    _complain(plan.problems)
    if shortage := plan.shortage(jobs):
        raise DiskFull(f"the disk is full: {shortage}")
    with ProgressBars() as bars:
        done = {each.model: each for each in pull_steps(plan, lock, jobs, bars, bars.bytes)}
    outcomes = [done[step.model] for step in plan.steps]
    errors = {str(each.model): each.error for each in outcomes if each.error}
    pulled = {each.model: each.pulled for each in outcomes if each.pulled}
    if as_json:
        print_json(
            [*(_entry(*each) for each in pulled.items()), *_failures(plan.problems | errors)]
        )
    else:
        for each in pulled.items():
            _print(*each)
    _complain(errors)
    return bool(plan.problems or errors)


def _show(model: ModelId, steps: str, lock: Lock, jobs: int, as_json: bool) -> bool:
    """Whether any of them could not be pulled."""
    from pythia_bento.checkpoints.plan import make_plan
    from pythia_bento.runtime.progress import ProgressBars

    with ProgressBars() as bars:
        plan = make_plan(model, steps, lock, bars)
    if as_json:
        print_json(_plan_entry(plan, plan.shortage(jobs)))
    else:
        _print_plan(plan)
    if shortage := plan.shortage(jobs):
        click.echo(f"warning: {shortage}", err=True)
    _complain(plan.problems)
    return bool(plan.problems)


def _entry(model: ModelId, pulled: Pulled) -> dict[str, Any]:
    origin = pulled.model.origin
    return {
        "model": str(model),
        "tag": str(pulled.model.tag),
        "commit": origin.commit,
        "was_there": pulled.was_there,
        "same_weights": origin.same_weights,
    }


def _failures(errors: dict[str, PythiaError]) -> list[dict[str, str]]:
    return [{"model": model, "error": error.message} for model, error in errors.items()]


def _print(model: ModelId, pulled: Pulled) -> None:
    tag, same_weights = pulled.model.tag, pulled.model.origin.same_weights
    click.echo(f"{tag} was there already" if pulled.was_there else tag)
    if same_weights:
        others = shortened(same_weights)
        click.echo(f"warning: the weights of {model} are also those of {others}", err=True)


def _complain(errors: dict[str, PythiaError]) -> None:
    """One line for each that failed, and one for all that were not begun."""
    from pythia_bento.checkpoints.pull_steps import NotBegun

    not_begun = []
    for model, error in errors.items():
        if isinstance(error, NotBegun):
            not_begun.append(model)
        else:
            click.echo(f"error: {model}: {' '.join(error.message.split())}", err=True)
    if not_begun:
        waiting = shortened(not_begun)
        click.echo(f"error: {waiting} not begun; pull again when there is room", err=True)


def _plan_entry(plan: Plan, shortage: str) -> dict[str, Any]:
    return {
        "model": plan.model.name,
        "steps": [
            {
                "step": step.model.step,
                "commit": step.source.commit,
                "download_bytes": step.size - step.there,
                "keep_bytes": step.keep,
                "in_store": step.stored is not None,
                "same_weights": step.source.same_weights(),
            }
            for step in plan.steps
        ],
        "missing": _failures(plan.problems),
        "distinct_weights": plan.num_weights,
        "download_bytes": plan.download,
        "keep_bytes": plan.keep,
        "in_store_bytes": plan.kept,
        "shortage": shortage,
    }


def _print_plan(plan: Plan) -> None:
    from rich import box
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("step", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("to download", justify="right")
    table.add_column("to keep", justify="right")
    table.add_column("")
    for step in plan.steps:
        amounts = (decimal(step.size - step.there), decimal(step.keep))
        table.add_row(step.model.revision, *amounts, _remark(step))
    console.print(table)
    click.echo(
        f"{len(plan.steps)} steps of {plan.model.name}, {plan.num_weights} sets of weights; to "
        f"download {decimal(plan.download)},\nto keep about {decimal(plan.keep)}, in the store "
        f"{decimal(plan.kept)}"
    )


def _remark(step: Step) -> str:
    if step.stored:
        return "in the store"
    return f"weights of {step.twin}" if step.twin else ""
