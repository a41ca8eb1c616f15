"""The programs, their environments, and how each is started and judged."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.serving import ROOT

HERE = Path(__file__).parent
PYTHON, LOAD, NODE = (
    ROOT / name for name in (".venv-clients", ".venv-clients-load", ".npm-clients")
)
# A tokenizer for programs that count tokens themselves.
TOKENIZER = ROOT / "pythia_bento" / "checkpoints" / "bundled" / "step3000"
REQUESTS = 20


@dataclass(frozen=True)
class Program:
    """One of them. ``judge`` reads what it printed; without it, it tells what it was answered."""

    name: str
    package: str
    command: Callable[[str, Path], list[str]]
    place: Path = PYTHON
    judge: Callable[[str, Path], str] | None = None

    def version(self) -> str:
        """Of what is installed."""
        if self.place == NODE:
            found = json.loads((NODE / "node_modules" / self.package / "package.json").read_text())
            return str(found["version"])
        show = f"import importlib.metadata as m; print(m.version({self.package!r}))"
        command = [str(self.place / "bin" / "python"), "-c", show]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def variables(self) -> dict[str, str]:
        """Nothing is looked up, told to anybody or kept."""
        quiet = {
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "DO_NOT_TRACK": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**kept, **quiet, "OPENAI_API_KEY": "none"}


def python(script: str) -> Callable[[str, Path], list[str]]:
    path = HERE / "python" / f"{script}.py"
    return lambda url, folder: [str(PYTHON / "bin" / "python"), str(path), url]


def node(script: str) -> Callable[[str, Path], list[str]]:
    # Modules are looked for beside the script.
    return lambda url, folder: ["node", str(NODE / f"{script}.mjs"), url]


def guidellm(url: str, folder: Path) -> list[str]:
    return [
        *(str(LOAD / "bin" / "guidellm"), "run", "--disable-console-interactive"),
        *(
            "--backend",
            f"kind=openai_http,target={url},model=bundled,request_format=/v1/completions",
        ),
        *("--profile", "kind=concurrent,streams=4"),
        *("--constraint", f"kind=max_requests,count={REQUESTS}"),
        *("--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}"),
        *("--data", "kind=synthetic_text,prompt_tokens=24,output_tokens=8"),
        *("--output", f"kind=json,path={folder}/made.json"),
    ]


def judge_guidellm(printed: str, folder: Path) -> str:
    [path] = folder.glob("*.json")
    [run] = json.loads(path.read_text())["benchmarks"]
    totals = run["metrics"]["request_totals"]
    assert totals["errored"] == 0 and totals["successful"] >= REQUESTS, totals
    return f"{totals['successful']} requests by `/v1/completions`, streamed, after `/health`"


def aiperf(url: str, folder: Path) -> list[str]:
    return [
        *(str(LOAD / "bin" / "aiperf"), "profile", "--url", url, "--model", "bundled"),
        *("--endpoint-type", "completions", "--streaming", "--request-count", str(REQUESTS)),
        *("--concurrency", "4", "--tokenizer", str(TOKENIZER), "--ui", "none"),
        *("--isl", "24", "--osl", "8", "--artifact-dir", str(folder / "made")),
    ]


def judge_aiperf(printed: str, folder: Path) -> str:
    [path] = (folder / "made").rglob("profile_export_aiperf.json")
    found = json.loads(path.read_text())
    assert found["request_count"]["avg"] == REQUESTS, found["request_count"]
    assert not re.search(r"\berror_request_count\b", path.read_text())
    return f"{REQUESTS} requests by `/v1/completions`, streamed"


PROGRAMS = (
    Program("openai (Python)", "openai", python("openai_client")),
    Program("litellm", "litellm", python("litellm_client")),
    Program("langchain-openai", "langchain-openai", python("langchain_client")),
    Program("llama-index", "llama-index-llms-openai-like", python("llama_index_client")),
    Program("dspy", "dspy", python("dspy_client")),
    Program("openai (Node)", "openai", node("openai_client"), NODE),
    Program("Vercel AI SDK", "ai", node("ai_client"), NODE),
    Program("guidellm", "guidellm", guidellm, LOAD, judge_guidellm),
    Program("aiperf", "aiperf", aiperf, LOAD, judge_aiperf),
)
