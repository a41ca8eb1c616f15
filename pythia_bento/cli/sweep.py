"""``pythia-bento sweep``: the same items at every step of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pythia_bento.cli.capturing import capture_options, captured
from pythia_bento.cli.common import model_names
from pythia_bento.errors import InvalidRequest

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Score or continue texts at many training steps.")
@click.argument("names", nargs=-1, shell_complete=model_names)
@click.option("--steps", help="all, log, a list as 0,1,512, or FROM:TO:BY.  [default: all]")
@click.option("--items", "items_path", type=_FILE, help="A .jsonl, .txt or .parquet file.")
@click.option("-o", "--output", type=_DIRECTORY, help="Directory of the results.")
@click.option(
    "--task",
    type=click.Choice(["score", "generate", "extract", "activations"]),
    default="score",
    show_default=True,
)
@click.option("--tokens", is_flag=True, help="Columns with every token, too.")
@click.option("--max-tokens", type=int, help="Of all but score.  [default: 32; activations: 0]")
@click.option("--prompt-tokens", type=int, help="Of extract.  [default: 32]")
@click.option("--share", is_flag=True, help="Of extract: generate, too, and compare.")
@click.option("--temperature", type=float, help="Of generated text; 0 is greedy.  [default: 1.0]")
@click.option("--seed", type=int, help="Of generated text.  [default: 0]")
@capture_options
@click.option("--server", metavar="URL", help="Ask this server, grpc://... or http://...")
@click.option("--api-key", envvar="PYTHIA_API_KEY", help="Its key.  [env: PYTHIA_API_KEY]")
@click.option("--shard", metavar="I/N", help="Compute part I of N, from 0 on.")
@click.option("--shard-by", type=click.Choice(["checkpoints", "items"]), default="checkpoints")
@click.option("--merge", is_flag=True, help="Join the parts of all shards, and look for gaps.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["parquet", "jsonl"]),
    help="Of tables; activations are safetensors.  [default: parquet]",
)
@click.option("--ray", metavar="ADDRESS", help="Ask a Ray cluster; auto is that of this machine.")
@click.option("--plot", is_flag=True, help="Draw the curves of a complete sweep, too.")
@click.option("--plan", is_flag=True, help="Only say what it would take.")
@click.option(
    "--device",
    type=click.Choice(["h200", "cpu"]),
    default="h200",
    show_default=True,
    help="Of --plan: whose measured rates.",
)
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Of --plan: that it may take.",
)
def sweep(output: Path | None, merge: bool, **asked: Any) -> None:
    """Ask the same items of many training steps of the models NAMES.

    NAMES are models without a revision, of which --steps says the steps, or single checkpoints as
    pythia-14m@step512. Each checkpoint's rows are one file below --output, which is there as a
    whole or not at all: started again, the same command computes what is missing. The exit status
    is 1 if some checkpoints failed or were interrupted; the others are there.
    """
    of_plan = {name: asked.pop(name) for name in ("device", "hours")}
    is_plan = asked.pop("plan")
    if output is None and not is_plan:
        raise InvalidRequest("a sweep needs --output")
    if merge and output is not None:
        _merge(output, asked["plot"])
        return
    names, items = asked.pop("names"), asked.pop("items_path")
    if not names or items is None:
        raise InvalidRequest("a sweep needs NAMES and --items")
    task = _task(**{name: asked.pop(name) for name in ("task", *_OF_TASK)})
    asked["suffix"] = _suffix(task, **asked)
    if is_plan:
        from pythia_bento.cli.planning import print_plan

        print_plan(names, items, steps=asked["steps"], task=task, **of_plan)
    elif output is not None:
        from pythia_bento.cli.sweeping import sweep_into

        if asked["ray"] is not None and asked["server"] is not None:
            raise InvalidRequest("--ray and --server are two ways to ask; choose one")
        sweep_into(output, names, items, task=task, **asked)


def _merge(output: Path, plot: bool) -> None:
    from pythia_bento.cli.sweeping import merge_parts, plot_curves

    merge_parts(output)
    if plot:
        plot_curves(output)


def _suffix(
    task: dict[str, Any], *, suffix: str | None, ray: str | None, plot: bool, **_: Any
) -> str:
    """Of the files; raises InvalidRequest for what is not made of activations."""
    if task["type"] != "activations":
        return suffix or "parquet"
    for option, value in (("--format", suffix), ("--ray", ray), ("--plot", plot)):
        if value:
            raise InvalidRequest(f"{option} is no option of --task activations")
    return "safetensors"


_OF_TASK = (
    *("tokens", "share", "max_tokens", "prompt_tokens", "temperature", "seed"),
    *("capture", "capture_file", "dtype"),
)


def _task(task: str, tokens: bool, share: bool, **others: Any) -> dict[str, Any]:
    """The task's fields; raises InvalidRequest for an option of another task."""
    given = {name: value for name, value in others.items() if value not in (None, ())}
    given |= {"tokens": True} if tokens else {}
    given |= {"share": True} if share else {}
    known = {
        "score": {"tokens": "tokens"},
        "generate": {
            "max_tokens": "max_tokens",
            "temperature": "temperature",
            "seed": "seed",
            "tokens": "logprobs",
        },
        "extract": {"max_tokens": "tokens", "prompt_tokens": "prompt_tokens", "share": "share"},
        "activations": {
            **{name: name for name in ("max_tokens", "temperature", "seed", "dtype")},
            **{name: name for name in ("capture", "capture_file")},
        },
    }[task]
    if other := [name for name in given if name not in known]:
        raise InvalidRequest(f"--{other[0].replace('_', '-')} is no option of --task {task}")
    fields = {known[name]: value for name, value in given.items()}
    if task == "activations":
        return {"type": task, **captured(fields)}
    if task == "generate":
        fields["logprobs"] = 0 if fields.pop("logprobs", False) else None
        fields.setdefault("max_tokens", 32)
    return {"type": task, **fields}
