"""Activations of the bundled steps: the same bits alone, in a sweep, and in its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import pythia_bento
from pythia_bento.client import Checkpoint, End, Failed, Row, open_activations
from pythia_bento.errors import InvalidRequest
from pythia_bento.local.model import Model
from pythia_bento.protocol.activations import Run
from tests.integration.sweeping import damage, steps
from tests.integration.test_cli_sweep import write
from tests.unit.cli.test_cli import Cli

__all__ = ["steps"]  # a fixture

TEXTS = ["Once upon a time", "The cat sat on the mat", "Question: What color is the sky?"]
CAPTURE = ["blocks.*.hook_resid_post", "blocks.1.attn.hook_pattern", "blocks.2.attn.hook_z"]
SITES = [arg for site in CAPTURE for arg in ("--capture", site)]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)  # where there is no lock
    monkeypatch.setenv("PYTHIA_DEVICE", "cpu")
    write(tmp_path / "items.jsonl", [{"id": text[:3], "prompt": text} for text in TEXTS])
    return Cli(capsys)


@pytest.fixture(scope="module")
def lm() -> Iterator[Model]:
    with pythia_bento.load(models="bundled@*", device="cpu", progress=False) as lm:
        yield lm


def alone(lm: Model, step: int, **fields: Any) -> list[Run]:
    """Each text asked by itself."""
    options = {"capture": CAPTURE, "model": f"bundled@step{step}"} | fields
    return [lm.activations(text, **options)[0] for text in TEXTS]


def assert_same(found: Run, wanted: Run) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name
    assert (found.tokens, found.token_ids) == (wanted.tokens, wanted.token_ids)
    assert found.completion == wanted.completion


def test_a_file_a_step_with_the_bits_of_single_requests(
    cli: Cli, tmp_path: Path, lm: Model
) -> None:
    sweep = ("sweep", "bundled", "--items", "items.jsonl", "--output", "x", *SITES)
    sweep = (*sweep, "--task", "activations", "--max-tokens", "2", "--seed", "3")
    status, out, err = cli(*sweep, "--steps", "64")
    assert (status, out) == (0, "1 checkpoints, 3 rows in x; 0 were there already\n")
    assert "checkpoints" in err and "3/3" in err
    first = tmp_path / "x" / "model=bundled" / "step=000064.safetensors"
    before = first.read_bytes()
    status, out, _ = cli(*sweep, "--steps", "64,3000")
    assert (status, out) == (0, "1 checkpoints, 3 rows in x; 1 were there already\n")
    assert first.read_bytes() == before
    for step in (64, 3000):
        path = first.with_name(f"step={step:06d}.safetensors")
        found = open_activations(path)
        assert found.model == f"bundled@step{step}"
        assert found.fingerprint == lm.info(found.model).fingerprint
        for run, wanted in zip(found, alone(lm, step, max_tokens=2, seed=3), strict=True):
            assert_same(run, wanted)
        tensors = load_file(path)
        assert np.array_equal(
            tensors["2:blocks.0.hook_resid_post"], found[2]["blocks.0.hook_resid_post"]
        )
    status, _, err = cli(*sweep, "--steps", "64", "--dtype", "bfloat16")
    assert status == 2 and "x has another sweep" in err


def test_parts_of_items_join(cli: Cli, tmp_path: Path) -> None:
    sweep = ("sweep", "bundled@step64", "--items", "items.jsonl", "--task", "activations", *SITES)
    assert cli(*sweep, "--output", "whole")[0] == 0
    for index in (0, 1):
        part = ("--output", "parts", "--shard", f"{index}/2", "--shard-by", "items")
        assert cli(*sweep, *part)[0] == 0
    status, out, _ = cli("sweep", "--merge", "--output", "parts")
    assert (status, out) == (0, "1 of 1 checkpoints are complete in parts\n")
    place = Path("model=bundled", "step=000064.safetensors")
    assert (tmp_path / "parts" / place).read_bytes() == (tmp_path / "whole" / place).read_bytes()


def test_a_damaged_step_is_no_others_loss(cli: Cli, tmp_path: Path, steps: Path) -> None:
    damage(steps, "step64")
    (tmp_path / "spec.json").write_text('{"logits": {"tokens": [5]}}')
    sweep = ("sweep", "bundled", "--items", "items.jsonl", "--output", "x", "--steps", "64,256")
    status, out, err = cli(*sweep, "--task", "activations", "--capture-file", "spec.json")
    assert (status, out) == (1, "1 checkpoints, 3 rows in x; 0 were there already\n")
    assert "error: bundled@step64: " in err
    assert [path.name for path in (tmp_path / "x" / "model=bundled").iterdir()] == [
        "step=000256.safetensors"
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "activations need --capture"),
        (("--capture", "x", "--format", "jsonl"), "--format is no option of --task activations"),
        (("--capture", "x", "--plot"), "--plot is no option of --task activations"),
        (("--capture", "x", "--ray", "auto"), "--ray is no option of --task activations"),
        (("--capture", "x", "--tokens"), "--tokens is no option of --task activations"),
        (("--capture-file", "items.jsonl"), "it is not valid JSON"),
        (("--capture-file", "list.json"), "must be an object with capture"),
    ],
)
def test_bad_options(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "list.json").write_text("[]")
    sweep = ("sweep", "bundled", "--items", "items.jsonl", "--output", "x", "--task", "activations")
    status, _, err = cli(*sweep, *arguments)
    assert status == 2 and words in err


def test_a_plan_says_what_it_leaves_out(cli: Cli) -> None:
    plan = ("sweep", "bundled", "--items", "items.jsonl", "--plan", "--task", "activations")
    status, out, _ = cli(*plan, "--capture", "hook_embed")
    assert status == 0 and "Activations are read and written on top of that" in out


def test_options_of_other_tasks(cli: Cli) -> None:
    sweep = ("sweep", "bundled", "--items", "items.jsonl", "--output", "x")
    status, _, err = cli(*sweep, "--capture", "x")
    assert status == 2 and "--capture is no option of --task score" in err


def test_rows_in_ones_own_process(lm: Model) -> None:
    """Events have runs; vectors may be arrays; a site that is none is the row's error."""
    change = {"site": "blocks.0.hook_resid_pre", "op": "add", "vector": np.ones(128, np.float32)}
    task = {"type": "activations", "capture": CAPTURE, "interventions": [change]}
    events = list(lm.sweep(TEXTS, model="bundled", steps=[0, 64], task=task))
    assert events[-1] == End(2, 0)
    prints = [one.system_fingerprint for one in events if isinstance(one, Checkpoint)]
    assert prints == [lm.info(f"bundled@step{step}").fingerprint for step in (0, 64)]
    for index, step in enumerate((0, 64)):
        rows = {one.item: one for one in events if isinstance(one, Row) and one.checkpoint == index}
        for item, wanted in enumerate(alone(lm, step, interventions=[change])):
            run = rows[item].run
            assert run is not None
            assert_same(run, wanted)
    task = {"type": "activations", "capture": "blocks.7.hook_resid_pre"}
    [row] = [e for e in lm.sweep("a", steps=[64], task=task) if isinstance(e, (Row, Failed))]
    assert isinstance(row, Row) and isinstance(row.error, InvalidRequest)
    assert "layers are 0 to 2" in row.error.message


def test_the_command_for_one_text(cli: Cli, tmp_path: Path, lm: Model) -> None:
    status, out, _ = cli("activations", TEXTS[0], *SITES, "--out", "a.safetensors")
    assert status == 0 and "blocks.1.attn.hook_pattern" in out and "4 x 4 x 4" in out
    [found] = open_activations(tmp_path / "a.safetensors")
    assert_same(found, alone(lm, 3000)[0])
    status, out, _ = cli(
        *("activations", TEXTS[0], "--capture", "hook_embed", "--positions=-1", "--json")
    )
    assert status == 0 and '"hook_embed"' in out and '"shape": [\n        1,\n        128' in out
    status, _, err = cli("activations", TEXTS[0], *SITES, "--positions", "first")
    assert status == 2 and "--positions must be all, last" in err


def test_the_command_for_a_grid(cli: Cli, tmp_path: Path) -> None:
    prompts = ("Once upon a time", "Once upon a day")
    status, out, _ = cli("patch", *prompts, "--tokens", " there", "--tokens", ",")
    assert status == 0 and "3 ' time'" in out and "logit_diff ' there' ','" in out
    heads = ("--heads", "--site", "blocks.*.attn.hook_z", "--plot", "heads.png")
    status, out, _ = cli("patch", *prompts, "--tokens", " there", *heads)
    assert status == 0 and out.endswith("heads.png\n") and (tmp_path / "heads.png").is_file()
    status, _, err = cli("patch", prompts[0], "Once", "--tokens", " there")
    assert status == 2 and "tokens" in err
    status, _, err = cli("patch", *prompts, *("--tokens", "a") * 3)
    assert status == 2 and "once or twice" in err
