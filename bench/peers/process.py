"""The parent's side of ``worker``: start an engine, ask for figures, stop it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
PEERS_PYTHON = ROOT / ".venv-peers/bin/python"  # made by `make bench-peers`


@dataclass(frozen=True, slots=True)
class Engine:
    """How to start one engine, and how many bytes it reads for each token."""

    name: str
    module: str  # in bench.peers
    variant: str
    linear_bytes: float  # a weight of the linears
    head_bytes: float  # a weight of the head
    is_extra: bool = False  # lives in the environment of `make bench-peers`
    batches: tuple[int, ...] = ()  # texts at a time among which scoring takes the best

    @property
    def python(self) -> str:
        return str(PEERS_PYTHON) if self.is_extra else sys.executable

    @property
    def is_installed(self) -> bool:
        """Whether its package can be imported."""
        if not self.is_extra:
            return True
        if not PEERS_PYTHON.exists():
            return False
        command = [self.python, "-c", f"import {self.variant}"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def command(self, what: str, checkpoint: Path) -> list[str]:
        return [
            *(self.python, "-m", f"bench.peers.{self.module}"),
            *(what, str(checkpoint), self.variant),
        ]


def extra_versions() -> dict[str, str]:
    """Versions of the engines that ``make bench-peers`` installed."""
    if not PEERS_PYTHON.exists():
        return {}
    command = [str(PEERS_PYTHON), "-m", "pip", "list", "--format", "json"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    wanted = ("llama_cpp_python", "ctranslate2")
    return {p["name"]: p["version"] for p in listed if p["name"].replace("-", "_") in wanted}


class Ended(Exception):
    """An engine's process is no more; says how it ended, in one line."""


class Process:
    """A running engine. A context manager: the process ends with it."""

    def __init__(self, engine: Engine, checkpoint: Path, log: Path) -> None:
        """Convert the checkpoint if need be, then load it; raises Ended when that fails."""
        self.engine = engine
        self._log = log
        with log.open("w") as errors:
            prepared = subprocess.run(
                engine.command("prepare", checkpoint), cwd=ROOT, stdout=errors, stderr=errors
            )
            if prepared.returncode:
                raise Ended(how(prepared.returncode, log.read_text()))
            self._process = subprocess.Popen(
                engine.command("serve", checkpoint),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            self.peak_mb: float = self._read()["peak_mb"]
        except Ended:
            self._end()
            raise

    def seconds(self, **request: int) -> float:
        """What ``worker.main`` measures for a request; raises Ended when the process dies."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # reading says how it ended
        return float(self._read()["seconds"])

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()  # closes the pipes too

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Ended(how(self._process.wait(), self._log.read_text()))
        answer: dict[str, Any] = json.loads(line)
        return answer


def how(code: int, log: str) -> str:
    """How a process ended: its signal, or its exit status and the last line that it wrote."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "no output")
    return f"exit status {code}: {last[:200]}"
