"""lm-evaluation-harness as it comes, against the server and against its own ``hf`` backend.

The harness has an environment of its own, which ``make test`` makes (``make eval``). Both of its
backends see the same weights: ``hf`` gets the bundled checkpoint, dequantised, in fp32.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from tests.e2e.eval_tasks import METRICS, PREFIX, write_tasks
from tests.e2e.serving import ROOT, Server
from tests.models import dequantized_model

LM_EVAL = ROOT / ".venv-eval" / "bin" / "lm_eval"
CONTEXT = 512  # of the bundled checkpoint
DOCS = 16
TOLERANCE = 1e-4

pytestmark = pytest.mark.slow


class Run(NamedTuple):
    """What the harness wrote: figures by task and metric, answers by task and document."""

    figures: dict[str, dict[str, Any]]
    answers: dict[str, list[list[Any]]]
    log: str


class Harness:
    """Runs ``lm_eval`` in a folder that has its tasks, without any network but loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks = write_tasks(folder, DOCS)

    def run(self, name: str, *arguments: str) -> Run:
        output = self.folder / name
        done = subprocess.run(
            [
                *(LM_EVAL, "run", *arguments, "--tasks", ",".join(self.tasks)),
                *("--include_path", self.folder, "--output_path", output, "--log_samples"),
            ],
            env=os.environ
            | {
                "HF_HOME": str(self.folder / "hf"),
                "HF_HUB_OFFLINE": "1",
                "HF_DATASETS_OFFLINE": "1",
            },
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-5000:]
        [results] = output.rglob("results_*.json")
        figures = json.loads(results.read_text())["results"]
        answers = {task: self._answers(output, task) for task in self.tasks}
        return Run(figures, answers, done.stdout + done.stderr)

    def _answers(self, output: Path, task: str) -> list[list[Any]]:
        [samples] = output.rglob(f"samples_{task}_*.jsonl")
        docs = map(json.loads, samples.read_text().splitlines())
        ordered = sorted(docs, key=lambda doc: int(doc["doc_id"]))
        return [_flat(doc["filtered_resps"]) for doc in ordered]


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [leaf for part in value for leaf in _flat(part)]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    assert LM_EVAL.exists(), "lm-evaluation-harness is missing: `make eval` installs it"
    return Harness(tmp_path_factory.mktemp("lm_eval"))


@pytest.fixture(scope="module")
def theirs(harness: Harness) -> Iterator[Run]:
    """The harness's own backend on the same weights."""
    bundled = load_checkpoint("bundled")
    path = harness.folder / "dequantized"
    dequantized_model(bundled.path, bundled.source).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled.path / name, path)
    # Over an API the harness leaves room for one more token, and takes one away for that again.
    model = f"pretrained={path},dtype=float32,max_length={CONTEXT - 2}"
    yield harness.run("hf", "--model", "hf", "--model_args", model, "--device", "cpu")
    shutil.rmtree(path)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_every_figure_is_that_of_the_hf_backend(
    harness: Harness, theirs: Run, server: Server, batch_size: int
) -> None:
    arguments = {
        "model": "bundled",
        "base_url": f"{server.url}/v1/completions",
        "tokenizer_backend": "auto",
        "num_concurrent": 8,
        "max_length": CONTEXT,
    }
    ours = harness.run(
        f"server-{batch_size}",
        *("--model", "local-completions", "--batch_size", str(batch_size)),
        *("--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())),
    )
    assert "Using remote tokenizer from" in ours.log
    assert "API request failed" not in ours.log
    for kind, metrics in METRICS.items():
        task = PREFIX + kind
        for metric in metrics:
            mine, other = (run.figures[task][f"{metric},none"] for run in (ours, theirs))
            assert mine == pytest.approx(other, abs=TOLERANCE, rel=0), (task, metric)
        for mine, other in zip(ours.answers[task], theirs.answers[task], strict=True):
            assert_same_answer(mine, other)
    flags = [answer[1] for answer in ours.answers[PREFIX + "words"]]
    assert set(flags) == {"True", "False"}  # both kinds were compared


def assert_same_answer(mine: list[Any], other: list[Any]) -> None:
    """Greedy flags and text to the letter; log-probabilities, which are sums over a text, 1e-4."""
    assert len(mine) == len(other)
    for one, two in zip(mine, other, strict=True):
        try:
            value = float(two)
        except ValueError:
            assert one == two
        else:
            assert float(one) == pytest.approx(value, abs=TOLERANCE, rel=TOLERANCE)
