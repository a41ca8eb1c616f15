"""Runs lm-evaluation-harness through its library interface; by the Python of ``.venv-eval``.

    python run_lm_eval.py FOLDER

``FOLDER/runs.json`` maps names to arguments of ``lm_eval.simple_evaluate``; the tasks are those
whose YAML is in FOLDER. Figures and answers go to ``FOLDER/<name>.json``. One process for all
runs, and without the harness's own 13,000 tasks: reading those takes longer than everything else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.utils import setup_logging


def main() -> None:
    setup_logging()
    folder = Path(sys.argv[1])
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    for name, arguments in json.loads((folder / "runs.json").read_text()).items():
        found = lm_eval.simple_evaluate(
            tasks=sorted(path.stem for path in folder.glob("*.yaml")),
            task_manager=tasks,
            log_samples=True,
            bootstrap_iters=0,
            **arguments,
        )
        answers = {
            task: [sample["filtered_resps"] for sample in by_doc(samples)]
            for task, samples in found["samples"].items()
        }
        result = {"figures": found["results"], "answers": answers}
        (folder / f"{name}.json").write_text(json.dumps(result))


def by_doc(samples: list[dict]) -> list[dict]:
    return sorted(samples, key=lambda sample: sample["doc_id"])


if __name__ == "__main__":
    main()
