"""Make the environment of this repository, or complete it: ``python tools/install.py serve``.

``serve`` is what serving needs, ``test`` what tests and lint need too; ``lock FOLDER FILE...``
makes an environment of its own with the pins of files. A stage is one line; what its commands print
is shown when one fails. It runs before anything is installed: the standard library alone.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
UV = REQUIREMENTS / "uv.txt"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
KERNELS = ROOT / "pythia_bento" / "model" / "kernels" / "cpu" / "build.py"

# What a start imports. The service does without torch, so it need not wait for it.
SERVICE = "import pythia_bento.service"
ENGINE = "import pythia_bento.runtime.loading, pythia_bento.server.grpc.server"

# uv does not read pip's settings. Where pip looks for packages, and how it gets there:
PLACES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
}
WAYS = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY", "trusted-host": "UV_INSECURE_HOST"}


class Failed(Exception):
    """A command failed; says what it printed."""


class Command:
    """A running command, whose output waits until somebody asks for it."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - see wait
        self._process = subprocess.Popen(
            self._arguments,
            cwd=ROOT,
            env=inherited() | environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def wait(self) -> str:
        """What it printed. Raises Failed."""
        status = self._process.wait()
        with self._output:
            self._output.seek(0)
            text = self._output.read()
        if status:
            raise Failed(f"{text}error: {' '.join(self._arguments)} ended with status {status}")
        return text


def inherited() -> dict[str, str]:
    """The environment, without settings of the service and of how Python keeps what it compiled."""
    kept = os.environ.items()
    return {
        key: value
        for key, value in kept
        if not key.startswith("PYTHIA_") and key != "PYTHONDONTWRITEBYTECODE"
    }


def pip_settings(listed: str) -> dict[str, str]:
    """Of what ``pip config list`` prints, what holds for ``pip install``."""
    lines = re.findall(r"^(global|install|:env:)\.([a-z-]+)=('.*'|\".*\")$", listed, re.M)
    order = ["global", "install", ":env:"]  # later ones win
    lines.sort(key=lambda line: order.index(line[0]))
    return {name: ast.literal_eval(value) for _, name, value in lines}


def uv_settings(pip: Mapping[str, str]) -> dict[str, str]:
    """Variables that make uv look where pip looks, if nobody told uv itself."""
    found = {
        variable: " ".join(pip[name].split())
        for name, variable in (PLACES | WAYS).items()
        if name in pip and variable not in os.environ
    }
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = found["UV_FIND_LINKS"].replace(" ", ",")
    if "UV_INDEX" in found:  # as pip does: the best version of all places, whose hash is compared
        found.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return found


def torch_options(requirement: str, settings: Mapping[str, str]) -> list[str]:
    """PyTorch's own index, where nobody says where torch is to come from.

    uv then picks the build for the machine's driver, or the one for the CPU, which is a tenth of
    what the default index has.
    """
    is_plain = re.fullmatch(r"torch==[\d.]+", requirement)
    is_told = any(name in settings or name in os.environ for name in PLACES.values())
    return ["--torch-backend=auto"] if is_plain and not is_told else []


def make_environment() -> tuple[str | Path, ...]:
    """``VENV`` with uv; the pip that brought it, which is this Python's if that can reach out.

    A pip of the environment's own would take seconds. Python may come without one, and before
    22.3 it could not install into another environment.
    """
    locked = ("install", "--no-compile", "--no-deps", "--require-hashes", "-r", UV)
    if not PYTHON.exists():
        Command(sys.executable, "-m", "venv", "--without-pip", VENV).wait()
    pip: tuple[str | Path, ...] = (sys.executable, "-m", "pip", "--python", PYTHON)
    try:
        Command(*pip, *locked).wait()
    except Failed:
        Command(sys.executable, "-m", "venv", VENV).wait()
        pip = (PYTHON, "-m", "pip")
        Command(*pip, *locked).wait()
    return pip


class Installer:
    """uv in ``VENV``, with pip's settings."""

    def __init__(self) -> None:
        pip = make_environment()
        listed = Command(*pip, "config", "list").wait()
        self.settings = {"UV_NO_PROGRESS": "1", **uv_settings(pip_settings(listed))}

    def install(self, *arguments: str | Path, python: Path = PYTHON) -> None:
        command = (VENV / "bin" / "uv", "pip", "install", "--python", python, *arguments)
        Command(*command, **self.settings).wait()

    def install_locked(self, *files: Path, python: Path = PYTHON) -> None:
        named = [part for file in files for part in ("-r", file)]
        self.install("--no-deps", "--require-hashes", *named, python=python)

    def install_torch(self, requirement: str) -> None:
        options = torch_options(requirement, self.settings)
        try:
            self.install(*shlex.split(requirement), *options)
        except Failed:
            if not options:
                raise
            print("   PyTorch's own index does not answer; taking the default index's", flush=True)
            self.install(requirement)


def stage(number: int, text: str) -> None:
    print(f"== {number}/4 {text}", flush=True)


def compile_kernels(python: str | Path, what: str) -> Command:
    """For serving, those that this machine runs; tests and Bentos need all."""
    return Command(python, KERNELS, *(["--native"] if what == "serve" else []))


def has_compiler() -> bool:
    try:
        runpy.run_path(str(KERNELS))["compiler"]()
    except RuntimeError:
        return False
    return True


def make(what: str, torch: str) -> None:
    """Compilers and imports run beside what downloads and unpacks."""
    start = time.monotonic()
    stage(1, f"virtual environment in {VENV.name}, with {sys.executable}")
    kernels = compile_kernels(sys.executable, what) if has_compiler() else None
    installer = Installer()
    if what == "test":  # many processes import much of it, and some may not keep what they compiled
        installer.settings["UV_COMPILE_BYTECODE"] = "1"
    stage(2, f"packages of requirements/{what}.txt")
    installer.install_locked(REQUIREMENTS / f"{what}.txt")
    imports = [Command(PYTHON, "-c", SERVICE)]
    if kernels is None:
        installer.install_locked(REQUIREMENTS / "compiler.txt")
        kernels = compile_kernels(PYTHON, what)
    stage(3, torch)
    installer.install_torch(torch)
    imports.append(Command(PYTHON, "-c", ENGINE))
    stage(4, "pythia-bento and its CPU kernels")
    installer.install("--no-deps", "--no-build-isolation", "--editable", ROOT)
    for command in (*imports, kernels):
        command.wait()
    print(f"== ready after {time.monotonic() - start:.0f} s", flush=True)


def make_locked(folder: Path, files: list[Path]) -> None:
    print(f"== {' '.join(map(str, files))} into {folder}", flush=True)
    Command(PYTHON, "-m", "venv", "--clear", "--without-pip", folder).wait()
    Installer().install_locked(*files, python=folder / "bin" / "python")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True)
    for what in ("serve", "test"):
        kinds.add_parser(what).add_argument("--torch", required=True)
    lock = kinds.add_parser("lock")
    lock.add_argument("folder", type=Path)
    lock.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        if options.what == "lock":
            make_locked(options.folder, options.files)
        else:
            make(options.what, options.torch)
    except Failed as failed:
        sys.exit(str(failed))


if __name__ == "__main__":
    main()
