"""lm-evaluation-harness against two training steps of one server at a time, and of one each."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.eval_tasks import METRICS, write_tasks
from tests.e2e.serving import Server, serve
from tests.e2e.test_lm_eval import PYTHON, over_http

MODELS = ("bundled@step256", "bundled@step3000")
TWO_GB = 0.0025  # of the device: two of 1.14 MB
DOCS = 7  # a task, one of them longer than the context
SECONDS = 600

pytestmark = [pytest.mark.long, pytest.mark.needs("lm-eval")]


@contextlib.contextmanager
def evaluation(folder: Path, servers: dict[str, Server]) -> Iterator[subprocess.Popen[str]]:
    """The harness at work on each model, at the server named beside it."""
    write_tasks(folder, DOCS)
    runs = {}
    for model, server in servers.items():
        runs[model] = over_http(server, 16)
        runs[model]["model_args"]["model"] = model
    (folder / "runs.json").write_text(json.dumps(runs))
    offline = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [PYTHON, Path(__file__).with_name("run_lm_eval.py"), folder]
    process = subprocess.Popen(
        command,
        env=os.environ | offline,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        errors = process.communicate(timeout=SECONDS)[1]
        assert process.returncode == 0, errors[-5000:]
        assert "API request failed" not in errors
    finally:
        process.kill()


def found(folder: Path, model: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / f"{model}.json").read_text())
    return result


@pytest.fixture(scope="module")
def together(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two harnesses at the same time."""
    folders = {model: tmp_path_factory.mktemp("together") for model in MODELS}
    with (
        serve(home, models_gb=TWO_GB, turn_ms=5) as server,
        contextlib.ExitStack() as evaluations,
    ):
        for model, folder in folders.items():
            evaluations.enter_context(evaluation(folder, {model: server}))
    return {model: found(folder, model) for model, folder in folders.items()}


@pytest.fixture(scope="module")
def alone(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A server for each."""
    folder = tmp_path_factory.mktemp("alone")
    with contextlib.ExitStack() as stack:
        servers = {
            model: stack.enter_context(serve(home, model=model, models="")) for model in MODELS
        }
        with evaluation(folder, servers):
            pass
    return {model: found(folder, model) for model in MODELS}


@pytest.mark.parametrize("model", MODELS)
def test_one_server_is_as_good_as_two(
    together: dict[str, Any], alone: dict[str, Any], model: str
) -> None:
    assert together[model]["answers"] == alone[model]["answers"]
    for task, metrics in METRICS.items():
        for metric in metrics:
            mine, other = (run[model]["figures"][task] for run in (together, alone))
            assert mine[f"{metric},none"] == other[f"{metric},none"], (task, metric)


def test_the_steps_differ(alone: dict[str, Any]) -> None:
    first, last = (alone[model]["figures"]["bundled_texts"] for model in MODELS)
    assert first["byte_perplexity,none"] > last["byte_perplexity,none"]
