"""Wheels with compiled CPU kernels, one for each architecture: ``make wheel``.

ziglang compiles them for any Linux whose glibc is as old as torch's own wheels allow, also for
architectures that this machine has not. The package is built as ever; libraries and the tag of the
platform are put into it afterwards, so that ``pip wheel .`` makes the one for any machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pythia_bento.model.kernels.cpu import build

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "pythia_bento")
MADE = shutil.ignore_patterns("__pycache__", "*.so")
LIBRARIES = Path("pythia_bento/model/kernels/cpu/lib")
MACHINES = ("x86_64", "aarch64")


class Failed(Exception):
    """A command failed; says what it printed."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.wheel", description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=ROOT / "dist")
    parser.add_argument("--machine", choices=MACHINES, action="append", help="by default all")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        make(options.output, options.machine or MACHINES)
    except Failed as failed:
        sys.exit(str(failed))


def make(output: Path, machines: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pure = pure_wheel(Path(folder))
        for machine in machines:
            wheel = with_kernels(pure, machine, Path(folder) / machine)
            check(wheel, tag(machine))
            shutil.copy(wheel, output)
            print(f"{output / wheel.name} {wheel.stat().st_size / 1e6:.1f} MB", flush=True)


def tag(machine: str) -> str:
    return f"manylinux_{build.ZIG_GLIBC.replace('.', '_')}_{machine}"


def pure_wheel(folder: Path) -> Path:
    """For any machine; built from a copy, as an older ``build`` folder would find its way in."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=MADE)
        else:
            shutil.copy(ROOT / name, folder)
    run(folder, "pip", "wheel", ".", "--no-deps", "--no-build-isolation")
    [path] = folder.glob("*.whl")
    return path


def with_kernels(pure: Path, machine: str, folder: Path) -> Path:
    folder.mkdir()
    run(folder, "wheel", "unpack", str(pure))
    [unpacked] = folder.iterdir()
    compile_kernels(machine, unpacked / LIBRARIES)
    run(folder, "wheel", "pack", unpacked.name)
    run(folder, "wheel", "tags", "--remove", "--platform-tag", tag(machine), pure.name)
    [path] = folder.glob("*.whl")
    return path


def compile_kernels(machine: str, folder: Path) -> None:
    folder.mkdir()
    with ThreadPoolExecutor() as pool, tempfile.TemporaryDirectory() as made:
        variants = build.variants(machine)
        list(pool.map(lambda variant: compile_one(variant, machine, Path(made)), variants))
        for library in Path(made).glob("*.so"):
            shutil.copy(library, folder)


def compile_one(variant: str, machine: str, folder: Path) -> None:
    target = folder / build.file_name(variant, machine)
    for command in build.zig_commands(variant, str(target), machine):
        call(command, folder)
    target.chmod(0o755)


def check(wheel: Path, wanted: str) -> None:
    """What auditwheel finds in the libraries is no newer than the tag says."""
    said = " ".join(run(wheel.parent, "auditwheel", "show", wheel.name).split())
    found = re.search(r'following platform tag: "manylinux_2_(\d+)_', said)
    if not found or int(found[1]) > int(wanted.split("_")[2]):
        raise Failed(f"error: {wheel.name} is not what its name says: {said}")


def run(folder: Path, *module: str) -> str:
    return call([sys.executable, "-m", *module], folder)


def call(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{done.stdout}{done.stderr}error: {' '.join(command)} failed")
    return done.stdout


if __name__ == "__main__":
    main()
