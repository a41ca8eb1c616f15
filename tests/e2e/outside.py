"""An environment outside the repository: a wheel, and what its metadata asks for.

What is not ours is linked from this environment, file by file: nothing is downloaded, and it takes
seconds. Only the distributions are linked that the wheel's own metadata asks for, and what those
ask for in turn; so a package that is imported and not declared is missed here as it would be
elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UV = Path(sys.executable).parent / "uv"


@dataclass(frozen=True)
class Outside:
    """An environment that knows nothing of the repository, and a folder to work in."""

    python: Path
    folder: Path

    def run(self, *command: str | Path, **changed: str) -> str:
        variables = os.environ | {"PYTHIA_DEVICE": "cpu"} | changed
        variables.pop("PYTHONPATH", None)
        done = subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def site(self) -> Path:
        show = "import sysconfig; print(sysconfig.get_path('purelib'))"
        return Path(self.run(self.python, "-c", show).strip())


def asked_for(wheel: Path) -> list[Requirement]:
    """By the wheel's own metadata."""
    [metadata] = [
        path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info")
    ]
    return requirements(PathDistribution(metadata), set())


def environment_of(wheel: Path, needed: list[Requirement], folder: Path) -> Outside:
    """A new one with the wheel and what is needed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    outside = Outside(folder / "venv" / "bin" / "python", folder)
    for dependency in closure(needed):
        link(dependency, outside.site())
    install = ("install", "--offline", "--no-deps", wheel)
    outside.run(UV, "pip", *install, "--python", outside.python)
    return outside


def closure(wanted: list[Requirement]) -> Iterator[Distribution]:
    """The installed distributions that are needed, however indirectly."""
    wanted = list(wanted)
    seen: dict[str, set[str]] = {}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras | seen.get(name, set())
        if seen.get(name) != extras:
            if name not in seen:
                yield distribution(name)
            seen[name] = extras
            wanted += requirements(distribution(name), extras)


def requirements(of: Distribution, extras: set[str]) -> list[Requirement]:
    """Those that hold on this machine."""
    found = [Requirement(text) for text in of.requires or []]
    return [
        requirement
        for requirement in found
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def link(dependency: Distribution, site: Path) -> None:
    """With what was compiled, where this is kept: torch takes ten seconds to compile."""
    origin = Path(str(dependency.locate_file("")))
    for file in dependency.files or []:
        if ".." in file.parts:  # a command's script, which names this environment
            continue
        compiled = origin / file.parent / "__pycache__"
        for path in (origin / file, compiled / f"{file.stem}.{sys.implementation.cache_tag}.pyc"):
            target = site / path.relative_to(origin)
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)
