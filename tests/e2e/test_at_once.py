"""What stands for commands does what they do, but that nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.at_once import Fork
from tests.e2e.faulty import until

CODE = """
import os, sys
print(os.getcwd(), input(), os.environ.get("SAID"), __name__)
print("worse", file=sys.stderr)
{end}
"""
ENDS = {"": 0, "sys.exit(7)": 7, "sys.exit('why')": 1, "1 / 0": 1, "os.kill(os.getpid(), 9)": -9}


@pytest.mark.parametrize("end", ENDS)
def test_python_says_and_ends_as_ever(commands: Path, tmp_path: Path, end: str) -> None:
    done, alike = (
        subprocess.run(
            [python, "-c", CODE.format(end=end)],
            cwd=tmp_path,
            env={"SAID": "this"},
            input="asked\n",
            capture_output=True,
            text=True,
        )
        for python in (commands / "python", sys.executable)
    )
    assert alike.returncode == ENDS[end]
    assert done.returncode == (ENDS[end] if ENDS[end] >= 0 else 128 - ENDS[end])
    assert "os.kill" in end or done.stdout == alike.stdout == f"{tmp_path} asked this __main__\n"
    assert done.stderr.splitlines()[:1] == alike.stderr.splitlines()[:1] or "os.kill" in end
    assert done.stderr.splitlines()[-1:] == alike.stderr.splitlines()[-1:]


def test_a_command_that_fails_says_why(commands: Path) -> None:
    command = [commands / "pythia-bento", "score", "--model", "nonsense", "a"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "nonsense" in done.stderr


def test_a_fork_can_be_looked_at_and_ended(commands: Path, tmp_path: Path) -> None:
    with (tmp_path / "said").open("w+") as said:
        code = "import os, time; print(os.getpid(), os.getcwd(), flush=True); time.sleep(600)"
        fork = Fork(commands / "python", ["-c", code], tmp_path, {}, said.fileno())
        assert fork.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            fork.wait(0.01)
        until(lambda: (tmp_path / "said").read_text() == f"{fork.pid} {tmp_path}\n")
        fork.kill()
        assert fork.wait(60) == fork.poll() == fork.returncode == -9
        fork.kill()  # nobody else
