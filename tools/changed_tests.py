"""The unit tests that mirror what changed: ``python tools/changed_tests.py [COMMIT]``.

Changed is what differs from COMMIT (default: where this branch left ``origin/main``, else the last
commit), committed or not. Prints paths for pytest; a file without tests of its own name stands for
its folder's, and the tests of the whole package's structure always run. What tests of units cannot
cover is named on the error output.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
UNIT = PurePosixPath("tests/unit")
SOURCES = ("pythia_bento", "bench", "tools", "deploy")
ALWAYS = (UNIT / "test_layers.py", UNIT / "test_dependencies.py")


def tests_of(path: PurePosixPath, root: Path = ROOT) -> list[PurePosixPath]:
    """The tests that mirror a file of the repository; none where there are none."""
    if path.is_relative_to(UNIT):
        return [path if path.name.startswith("test_") else path.parent]
    if path.parts[0] not in SOURCES:
        return []
    inner = path.relative_to("pythia_bento") if path.parts[0] == "pythia_bento" else path
    for folder in (UNIT / inner.parent, *(UNIT / parent for parent in inner.parent.parents)):
        named = sorted((root / folder).glob(f"test_{path.stem}*.py"))
        if named:
            return [folder / test.name for test in named]
        if folder != UNIT and any((root / folder).glob("test_*.py")):
            return [folder]
    return []


def select(changed: Iterable[PurePosixPath], root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Tests to run, without those inside of another one's folder, and files that have none."""
    tests, without = set(ALWAYS), []
    for path in changed:
        found = [test for test in tests_of(path, root) if (root / test).exists()]
        tests.update(found)
        if not found and path.suffix != ".md":
            without.append(str(path))
    outer = {test for test in tests if not any(parent in tests for parent in test.parents)}
    return sorted(map(str, outer)), sorted(without)


def changed_since(commit: str) -> list[PurePosixPath]:
    """Files that differ from a commit, and new ones that git does not ignore."""
    lines = _git("diff", "--name-only", commit) + _git("ls-files", "--others", "--exclude-standard")
    return [PurePosixPath(line) for line in lines]


def base() -> str:
    """Where this branch left origin/main; the last commit where that is unknown or the same."""
    try:
        return _git("merge-base", "HEAD", "origin/main")[0]
    except subprocess.CalledProcessError:
        return "HEAD"


def _git(*arguments: str) -> list[str]:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("commit", nargs="?", help="what to compare with")
    commit = parser.parse_args().commit or base()
    tests, without = select(changed_since(commit))
    print(*tests)
    print(f"unit tests of what differs from {commit[:12]}: {' '.join(tests)}", file=sys.stderr)
    if without:
        print(f"not covered by unit tests: {' '.join(without)}", file=sys.stderr)


if __name__ == "__main__":
    main()
