"""Tests that cannot run here are left out and counted: pytest runs of their own show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INI = """
[pytest]
addopts = --strict-markers -p xdist -p tests.left_out
markers =
    gpu: as in pyproject.toml
    long: as there
"""
BODY = """
import pytest

def test_plain(): pass

@pytest.mark.needs("curl")
def test_curl(): pass

@pytest.mark.needs("curl", "promtool")
def test_both(): raise AssertionError("it has run")

@pytest.mark.long
def test_long(): pass
"""
GPU = """
import pytest

@pytest.mark.gpu
def test_gpu(): pass
"""
# In the place of the real one, whose import takes seconds.
TORCH = "class cuda:\n    is_available = staticmethod(lambda: {})"
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Pytest over ``BODY``, on a machine that has curl and nothing else."""
    curl = pytester.mkdir("bin") / "curl"
    curl.touch(0o755)
    monkeypatch.setenv("PATH", str(curl.parent))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # their imports take seconds
    pytester.makeini(INI)
    pytester.makepyfile(test_body=BODY)
    return pytester.runpytest_subprocess


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_missing_is_deselected_with_a_line(run: Run, workers: int) -> None:
    done = run("-n", str(workers))
    done.assert_outcomes(passed=3, deselected=0 if workers else 1)  # pytest-xdist counts none
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        ["left out: 1 tests, needs promtool, which is not here (test_body.py)"]
    )
    done.stdout.no_fnmatch_line("not allowed here*")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_may_not_leave_it_out_fails(run: Run, workers: int) -> None:
    done = run("-n", str(workers), "--may-leave-out", "gpu,long", "-m", "not long")
    done.assert_outcomes(passed=2, deselected=0 if workers else 2)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        ["left out: 1 tests, long (test_body.py)", "not allowed here: left out: needs promtool"]
    )


def test_what_may_be_left_out_is_no_failure(run: Run) -> None:
    done = run("--may-leave-out", "long,needs promtool", "-m", "not long")
    assert done.ret == 0
    done.stdout.no_fnmatch_line("not allowed here*")


def test_the_two_halves_of_all_tests_by_marker(run: Run) -> None:
    assert run("--may-leave-out", "long", "-m", "not long", "-k", "not both").ret == 1
    long = run("--may-leave-out", "unmarked", "-m", "long")
    long.assert_outcomes(passed=1, deselected=3)
    assert long.ret == 0
    long.stdout.fnmatch_lines(["left out: 3 tests, unmarked (test_body.py)"])
    assert run("--may-leave-out", "unmarked", "-m", "long", "-k", "plain").ret != 0


def test_a_skip_is_not_allowed_either(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_skip="import pytest\ndef test_skip(): pytest.skip('no')")
    assert run("test_skip.py").ret == 0
    done = run("test_skip.py", "--may-leave-out", "gpu")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["not allowed here: 1 skipped"])


def test_without_a_gpu_its_tests_are_left_out(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_gpu=GPU, torch=TORCH.format(False))
    done = run("test_gpu.py", "-m", "gpu")
    assert done.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    done.stdout.fnmatch_lines(["left out: 1 tests, gpu (test_gpu.py)"])


def test_with_a_gpu_they_run(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_gpu=GPU, torch=TORCH.format(True))
    run("test_gpu.py", "-m", "gpu").assert_outcomes(passed=1)


def test_a_failure_stays_one(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_wrong="def test_wrong(): assert False")
    assert run("test_wrong.py", "--may-leave-out", "gpu").ret == pytest.ExitCode.TESTS_FAILED


def test_an_unknown_need_is_an_error(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_odd=BODY.replace("promtool", "promtol"))
    done = run("test_odd.py")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*test_both needs promtol, which tests/needs.py does not know*"])
