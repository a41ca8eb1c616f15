"""``pythia-bento list``: the suite and the bundled checkpoint, or what was pulled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pythia_bento import catalog
from pythia_bento.checkpoints import bundle
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.cli.common import json_option, print_json
from pythia_bento.cli.pulled import list_pulled
from pythia_bento.model.config import ModelConfig

WHOLE_WIDTH = 100  # columns in which all of the table has room
SHAPE = ("layers", "hidden")


@click.command("list")
@click.option("--pulled", is_flag=True, help="List what is in the store instead.")
@json_option
def list_models(pulled: bool, as_json: bool) -> None:
    """List the models, their sizes, and what they take in 8 bits."""
    if pulled:
        list_pulled(as_json)
        return
    models = [_bundled(), *_suite()]
    if as_json:
        print_json(models)
    else:
        _print_table(models)


def _bundled() -> dict[str, Any]:
    steps = bundle.list_bundled()
    main = next(step for step in steps if step.is_main)
    shape = read_config(main.directory / "config.json")
    return _entry(catalog.BUNDLED, shape, [step.step for step in steps])


def _suite() -> Iterator[dict[str, Any]]:
    for name, model in catalog.MODELS.items():
        steps = [f"step{step}" for step in model.steps]
        yield _entry(name, catalog.config(name), steps)


def _entry(name: str, shape: ModelConfig, steps: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "parameters": catalog.parameters(shape),
        "int8_bytes": catalog.int8_bytes(shape),
        "num_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "num_heads": shape.num_heads,
        "revisions": [catalog.MAIN, *steps],
    }


def _print_table(models: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WHOLE_WIDTH)
    is_whole = console.width >= WHOLE_WIDTH  # names are to be copied whole: shapes give way
    table = Table("model", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("parameters", "8-bit MB", *(SHAPE if is_whole else ()), "revisions"):
        table.add_column(column, justify="right")
    for model in models:
        if "-seed" not in model["name"]:
            table.add_row(*_row(model, is_whole))
    console.print(table)
    seeded = [size for size, row in catalog.SIZES.items() if row.seeds]
    console.print(
        f"Training seeds: pythia-<size>-seed1 to -seed9 for {', '.join(seeded)}; for 160m also "
        "-data-seed1\nto 3 (another order of the data only) and -weight-seed1 to 3 (other first "
        "weights only)."
    )
    console.print(
        "A revision follows the name, as in pythia-1b@step3000: main, a step or a commit.\n"
        "Steps of the suite: 0, 1, 2, 4, ..., 512, then 1000 to 143000 by 1000; of -v0 the latter."
    )


def _row(model: dict[str, Any], is_whole: bool) -> list[str]:
    shape = [str(model["num_layers"]), str(model["hidden_size"])] if is_whole else []
    return [
        model["name"],
        f"{model['parameters']:,}",
        f"{model['int8_bytes'] / 1e6:,.1f}",
        *shape,
        str(len(model["revisions"])),
    ]
