"""``pythia-bento sweep --plan``: what it would take. Nothing is downloaded, loaded or written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pythia_bento import catalog
from pythia_bento.catalog import parse as parse_id
from pythia_bento.cli.sweeping import ids_of
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.tokenizers import Tokenizers
from pythia_bento.sweep.at_hand import AtHand
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.items import read_items
from pythia_bento.sweep.plan import AT_MOST, NOT_WRITTEN, Part, plan, rendered, work_of
from pythia_bento.sweep.spec import SweepSpec

Count = Callable[[Any], int]


def print_plan(
    names: Sequence[str],
    items: Path,
    *,
    steps: str | None,
    task: dict[str, Any],
    device: str,
    hours: float,
) -> None:
    """Raises PythiaError, or OSError for items that cannot be read."""
    spec = parse(SweepSpec, {"task": task, "steps": steps, "items": read_items(items)})
    at_hand = AtHand.of([parse_id(name).name for name in names])

    def there(name: str) -> set[int]:
        model = catalog.MODELS.get(name)
        return set(model.steps) if model else at_hand.steps(name)

    ids = ids_of(spec, names, steps, there)
    count = _counting(at_hand)
    found = plan(_parts(ids, at_hand), work_of(spec, count or _most), device, hours)
    click.echo("\n".join(rendered(found)))
    if count is None:
        click.echo(AT_MOST)
    if isinstance(spec.task, ActivationsTask):
        click.echo(NOT_WRITTEN)


def _parts(ids: Sequence[str], at_hand: AtHand) -> list[Part]:
    by_name: dict[str, list[str]] = {}
    for id in ids:
        by_name.setdefault(id.partition("@")[0], []).append(id)
    return [_part(name, its, at_hand) for name, its in by_name.items()]


def _part(name: str, ids: Sequence[str], at_hand: AtHand) -> Part:
    """Checkpoints whose weights are known to be equal count once."""
    here = [at_hand.entries[id] for id in ids if id in at_hand.entries]
    missing = len(ids) - len(here)
    distinct = len({entry.weights for entry in here}) + missing
    if name in catalog.MODELS:
        return Part.of(name, distinct, missing)
    if not here:
        raise InvalidRequest(f"nothing of {name} is here that would tell its size", param="model")
    shape = here[0].config
    return Part(name, catalog.parameters(shape), catalog.int8_bytes(shape), distinct, missing)


def _counting(at_hand: AtHand) -> Count | None:
    """By a tokenizer of these models: they all mean the same within the suite."""
    for entry in at_hand.entries.values():
        tokenizer = Tokenizers().of(entry)
        return lambda prompt: len(tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
    return None


def _most(prompt: Any) -> int:
    """Every token of these tokenizers is a byte or more."""
    return len(prompt.encode() if isinstance(prompt, str) else prompt)
