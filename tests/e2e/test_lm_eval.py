"""lm-evaluation-harness as it comes, against the server and against its own ``hf`` backend.

The harness has an environment of its own, which ``make test-long`` makes (``make eval``). Both of
its backends see the same weights: ``hf`` gets the bundled checkpoint, dequantised, in fp32.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from tests.e2e.eval_tasks import METRICS, write_tasks
from tests.e2e.serving import Server
from tests.models import dequantized_model
from tests.needs import EVAL

PYTHON = EVAL / "bin" / "python"
CONTEXT = 512  # of the bundled checkpoint
BATCH_SIZES = (1, 16)
DOCS = 14  # a task, two of them longer than the context
TOLERANCE = 1e-4

pytestmark = [pytest.mark.long, pytest.mark.needs("lm-eval")]


@pytest.fixture(scope="module")
def runs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the harness found: over ``hf``, and over the server at both batch sizes."""
    folder = tmp_path_factory.mktemp("lm_eval")
    write_tasks(folder, DOCS)
    asked = {"hf": over_hf(folder / "dequantized")}
    asked |= {f"server-{size}": over_http(server, size) for size in BATCH_SIZES}
    (folder / "runs.json").write_text(json.dumps(asked))
    offline = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("run_lm_eval.py"), folder],
        env=os.environ | offline,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stderr.count("Using remote tokenizer from") == len(BATCH_SIZES)
    assert "API request failed" not in done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in asked}


def over_hf(path: Path) -> dict[str, Any]:
    """Arguments for the harness's own backend; writes the checkpoint to ``path``."""
    bundled = load_checkpoint("bundled")
    dequantized_model(bundled.path, bundled.source).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled.path / name, path)
    # Over an API the harness keeps room for one more token, and takes one away for that again.
    model = {"pretrained": str(path), "dtype": "float32", "max_length": CONTEXT - 2}
    return {"model": "hf", "model_args": model, "device": "cpu", "batch_size": 1}


def over_http(server: Server, batch_size: int) -> dict[str, Any]:
    model = {
        "model": "bundled",
        "base_url": f"{server.url}/v1/completions",
        "tokenizer_backend": "auto",
        "num_concurrent": 8,
        "max_length": CONTEXT,
    }
    return {"model": "local-completions", "model_args": model, "batch_size": batch_size}


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_every_figure_is_that_of_the_hf_backend(
    runs: dict[str, Any], task: str, batch_size: int
) -> None:
    ours, theirs = runs[f"server-{batch_size}"], runs["hf"]
    for metric in METRICS[task]:
        mine, other = (run["figures"][task][f"{metric},none"] for run in (ours, theirs))
        assert mine == pytest.approx(other, abs=TOLERANCE, rel=0), metric
    for mine, other in zip(flat(ours, task), flat(theirs, task), strict=True):
        if isinstance(other, float):  # the log-probability of a whole text
            assert mine == pytest.approx(other, abs=TOLERANCE, rel=TOLERANCE)
        else:  # a greedy flag, or text
            assert mine == other


def test_the_batch_size_does_not_change_a_bit(runs: dict[str, Any]) -> None:
    one, other = (runs[f"server-{size}"] for size in BATCH_SIZES)
    assert one["answers"] == other["answers"]


def test_what_is_compared_is_not_trivial(runs: dict[str, Any]) -> None:
    flags = [answer for answer in flat(runs["hf"], "bundled_words") if isinstance(answer, bool)]
    assert (len(flags), set(flags)) == (DOCS, {True, False})
    assert len(set(flat(runs["hf"], "bundled_answers"))) > DOCS / 2
    for figures in runs["hf"]["figures"].values():
        assert figures["sample_len"] == DOCS


def flat(run: dict[str, Any], task: str) -> list[Any]:
    """All log-probabilities, flags and texts of a task, in order."""

    def leaves(value: Any) -> list[Any]:
        return (
            [leaf for part in value for leaf in leaves(part)]
            if isinstance(value, list)
            else [value]
        )

    return leaves(run["answers"][task])
