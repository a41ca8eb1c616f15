"""docs/completions.md against the schemas: every field once, with its default and its place."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

from pythia_bento.protocol.bodies import NEUTRAL, CompletionRequest, GenerateRequest

TEXT = (Path(__file__).parents[4] / "docs" / "completions.md").read_text()
LINES = re.findall(r"^\| `.*\|$", TEXT, re.M)
CELLS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in LINES]
# Field: default, whether /generate has it.
ROWS = {name.strip("`"): (default.strip("`"), bool(dot)) for name, default, _, dot, _ in CELLS}


def test_every_field_is_in_the_table() -> None:
    assert len(ROWS) == len(LINES)
    assert ROWS.keys() == CompletionRequest.model_fields.keys()
    dotted = {name for name, (_, dot) in ROWS.items() if dot}
    assert dotted == GenerateRequest.model_fields.keys()


def test_defaults() -> None:
    defaults = {"stop": [], "stop_token_ids": [], "logit_bias": {}, "best_of": "n"}
    for name, (shown, _) in ROWS.items():
        field = CompletionRequest.model_fields[name]
        if not field.is_required() and name != "model":
            expected = defaults.get(name, field.default)
            assert shown == ("n" if expected == "n" else json.dumps(expected)), name


def test_what_is_refused_is_named_with_its_neutral_value() -> None:
    refused = TEXT[TEXT.index("Refused, unless") :].split("\n")[0]
    for name, neutral in NEUTRAL.items():
        shown = f"`{name}`" if neutral is None else f"`{name}` (`{json.dumps(neutral)}`)"
        assert shown in refused


def test_every_fault_has_a_test_that_is_there() -> None:
    root = Path(__file__).parents[4]
    table = (root / "docs" / "faults.md").read_text().partition("## Faults")[2].partition("\n**")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 19
    for previous, row in pairwise(["", *rows]):
        cell = row.rstrip(" |").rpartition(" | ")[2]
        named = re.findall(r"`([\w/]+\.py)`", previous if cell.strip() == "same" else cell)
        assert named, row
        for name in named:
            places = [root / "tests" / name, root / "tests" / "e2e" / name]
            assert any(place.exists() for place in places), name
