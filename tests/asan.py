"""The CPU kernels under AddressSanitizer: their tests, and configs that are accepted.

usage: python -m tests.asan [--computed N] [--seed N]

Needs g++ with its libasan. The kernels are compiled with the sanitizer into a folder of its own;
the process is started anew with the sanitizer's library before all others, and ends with its report
if a kernel reads or writes outside of its arrays.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = ("-fsanitize=address", "-fno-omit-frame-pointer", "-g1", "-O1")
# Leaks are Python's own; the others are as they would be.
OPTIONS = "detect_leaks=0:halt_on_error=1:abort_on_error=1"
TESTS = tuple(
    f"tests/unit/model/kernels/cpu/test_{name}.py"
    for name in ("check", "kernels", "inside", "sampling")
)


def start_anew() -> None:
    """Replace this process by one in which the sanitizer is loaded first."""
    library = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    os.environ |= {"LD_PRELOAD": library, "ASAN_OPTIONS": OPTIONS}
    os.execv(sys.executable, [sys.executable, "-m", "tests.asan", *sys.argv[1:]])


def sanitize(folder: Path) -> None:
    """Let kernels be compiled with the sanitizer, into ``folder``."""
    from pythia_bento.model.kernels.cpu import build

    build.FLAGS = (*(flag for flag in build.FLAGS if flag not in ("-g0", "-O3")), *FLAGS)
    build._folders = lambda: iter([folder])
    build.compiler = lambda: ["g++"]  # whose library was loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--computed", type=int, default=200, help="configs; default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):
        start_anew()
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        sanitize(Path(folder) / "lib")
        if status := pytest.main(["-q", "-p", "no:cacheprovider", *TESTS]):
            sys.exit(status)
        from tests.fuzz.computed import computed  # pytest wants to be the first that imports

        for seed in range(options.seed, options.seed + options.computed):
            computed(random.Random(seed), Path(folder))
        built = [path.name for path in (Path(folder) / "lib").iterdir()]
    print(f"{options.computed} configs computed, no report; libraries {', '.join(built)}")


if __name__ == "__main__":
    main()
