"""The comparison with published evaluations, on the published table and made-up results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import TOOLS, tool

compare = tool("compare_evals")
CSV = TOOLS.parent / "docs" / "data" / "pythia-1b-deduped-evals.csv"
PUBLISHED = compare.published(CSV)


def results(
    path: Path, step: int = 3000, shots: int = 0, model: str | None = None, **changed
) -> Path:
    """A file as the harness writes it, with the published values but for ``changed``."""
    figures: dict[str, dict] = {}
    for key, figure in PUBLISHED.items():
        if (key.step, key.shots) == (step, shots):
            task = figures.setdefault(key.task, {"alias": key.task, "sample_len": 100})
            shift = changed.get(f"{key.task}_{key.metric}", 0.0)
            task[f"{key.metric},none"] = figure.value + shift * figure.stderr
            task[f"{key.metric}_stderr,none"] = "N/A"
    model = model or f"pythia-1b-deduped@step{step}"
    data = {
        "results": figures,
        "n-shot": dict.fromkeys(figures, shots),
        "config": {"model_args": {"base_url": "http://host/v1/completions", "model": model}},
    }
    path.write_text(json.dumps(data))
    return path


def run(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, str(TOOLS / "compare_evals.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_published_table() -> None:
    steps = {key.step for key in PUBLISHED if key.shots == 0}
    assert (len(steps), max(steps)) == (27, 143000)
    lambada = PUBLISHED[compare.Key(0, 143000, "lambada_openai", "perplexity")]
    assert lambada.value == pytest.approx(7.409, abs=1e-3)
    assert all(figure.stderr > 0 for key, figure in PUBLISHED.items() if key.step >= 1000)


def test_what_was_published_agrees(tmp_path: Path) -> None:
    files = [results(tmp_path / f"{step}.json", step) for step in (0, 512, 3000, 143000)]
    few = results(tmp_path / "few.json", 143000, shots=5)
    status, text = run(CSV, *files, few)
    assert status == 0
    assert text.endswith("70 compared, 0 differ by more than a standard error, 0 missing\n")


@pytest.mark.parametrize(("shift", "status"), [(0.99, 0), (-0.99, 0), (1.01, 1), (-3.0, 1)])
def test_one_standard_error_is_the_limit(tmp_path: Path, shift: float, status: int) -> None:
    found, text = run(CSV, results(tmp_path / "r.json", lambada_openai_perplexity=shift))
    assert found == status
    assert f"{status} differ" in text
    [line] = [line for line in text.splitlines() if "lambada_openai  perplexity" in line]
    assert f"({shift:+.2f} errors)" in line
    assert line.endswith("DIFFERS" if status else "agrees")


def test_each_step_is_compared_with_itself(tmp_path: Path) -> None:
    wrong = results(tmp_path / "wrong.json", 3000, model="pythia-1b-deduped@step143000")
    status, text = run(CSV, wrong)
    assert status == 1
    assert "step 143000" in text and "step 3000 " not in text
    assert run(CSV, wrong, "--step", "3000")[0] == 0


@pytest.mark.parametrize("model", ["pythia-1b-deduped", "pythia-1b-deduped@main"])
def test_main_is_the_last_step(tmp_path: Path, model: str) -> None:
    assert run(CSV, results(tmp_path / "main.json", 143000, model=model))[0] == 0


def test_what_is_missing_is_no_agreement(tmp_path: Path) -> None:
    path = results(tmp_path / "r.json")
    data = json.loads(path.read_text())
    del data["results"]["piqa"]
    path.write_text(json.dumps(data))
    status, text = run(CSV, path)
    assert (status, text.count("missing\n")) == (1, 3)  # acc, acc_norm, and the summary
    assert run(CSV, path, "--allow-missing")[0] == 0
    data["results"] = {}
    path.write_text(json.dumps(data))
    assert run(CSV, path, "--allow-missing")[0] == 1


def test_a_commit_does_not_say_its_step(tmp_path: Path) -> None:
    path = results(tmp_path / "r.json", model="pythia-1b-deduped@" + "a" * 40)
    with pytest.raises(SystemExit, match="does not say which step"):
        compare.main([str(CSV), str(path)])
