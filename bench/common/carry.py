"""Wheels for a GPU machine with PyTorch and no network.

``python -m bench.common.carry [NAME==X ...]`` fills the folder ``.whl`` (ignored by git) with what
``requirements/serve-gpu.txt`` pins, for Python 3.12, less what such a machine brings itself, plus
the packages named. Over there, in the
repository's root:

    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \\
        --target /tmp/site .whl/*.whl && export PYTHONPATH=/tmp/site

``bentoml`` is then /tmp/site/bin/bentoml, or ``python3 -m bentoml``.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from bench.common.options import parser_of

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "serve-gpu.txt"
PYTHON = "3.12"
GLIBC = (39, 36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)  # pip wants each one named

# Large, and part of every machine with PyTorch and transformers.
AT_HOME = re.compile(
    r"torch|triton|cuda-.*|nvidia-(?!ml-py).*|numpy|setuptools|sympy|mpmath|networkx"
    r"|huggingface-hub|hf-xet|safetensors|tokenizers|transformers|uvloop"
)
EXTRA = ("httptools", "pytest-asyncio")  # for uvicorn, and for this project's pytest settings
MOST_BYTES = 45 << 20

BITSANDBYTES = "bitsandbytes"
LIBRARY = re.compile(r"bitsandbytes/libbitsandbytes_(?!cuda130|cpu)\w+\.so")
BUILD = "1cuda130"  # the build tag of the wheel without the other libraries


def main() -> None:
    parser = parser_of("bench.common.carry", __doc__)
    parser.add_argument("extra", nargs="*", help=f"more packages; always: {', '.join(EXTRA)}")
    parser.add_argument("--folder", type=Path, default=ROOT / ".whl")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(exist_ok=True)
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    pins = carried(LOCK.read_text())
    listed = folder / "requirements.txt"
    listed.write_text("\n".join(pins) + "\n")
    _download(folder, "--require-hashes", "-r", str(listed))
    listed.unlink()
    if more := [*(name for name in EXTRA if f"{name}==" not in "".join(pins)), *options.extra]:
        _download(folder, *more)
    for wheel in folder.glob(f"{BITSANDBYTES}-*.whl"):
        slim(wheel)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{len(list(folder.glob('*.whl')))} wheels, {size / 2**20:.1f} MiB in {folder}")
    lacking = missing(folder.glob("*.whl"))
    print("left to the machine:", ", ".join(sorted(map(str, lacking))))
    if size > MOST_BYTES:
        sys.exit(f"error: more than {MOST_BYTES >> 20} MiB")


def carried(lock: str) -> list[str]:
    """The pins of a lock, hashes included, that such a machine lacks or may have too old."""
    pins = re.findall(r"^[a-z0-9][^\n]*(?:\n    --hash=[^\n]*)+", lock, re.MULTILINE)
    return [pin for pin in pins if not AT_HOME.fullmatch(pin.partition("==")[0])]


def _download(folder: Path, *what: str) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC]
    command = [
        *(sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(folder)),
        *("--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"),
        *(*platforms, "--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"),
        *what,
    ]
    subprocess.run(command, check=True)


def slim(wheel: Path) -> Path:
    """bitsandbytes with its library for CUDA 13.0 alone: 4 MB instead of 43."""
    name, version, *tags = wheel.name.split("-")
    target = wheel.with_name("-".join([name, version, BUILD, *tags[-3:]]))
    record = f"{name}-{version}.dist-info/RECORD"
    lines = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            if LIBRARY.fullmatch(info.filename) or info.filename == record:
                continue
            data = old.read(info)
            new.writestr(info, data, zipfile.ZIP_DEFLATED)
            lines.append(f"{info.filename},sha256={_digest(data)},{len(data)}")
        new.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")
    wheel.unlink()
    return target


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def missing(wheels: Iterable[Path]) -> list[Requirement]:
    """What the wheels need and none of them is, on that machine's Python.

    Raises ValueError when a wheel has a version that another one does not accept, or when a
    package is there twice, which pip would refuse.
    """
    wheels = list(wheels)
    versions = dict(parse_wheel_filename(wheel.name)[:2] for wheel in wheels)
    if len(versions) < len(wheels):
        raise ValueError("a package is carried in two versions")
    found = {}
    for wheel in wheels:
        for need in _needs(wheel):
            version = versions.get(canonicalize_name(need.name))
            if version is None:
                found[str(need)] = need
            elif not need.specifier.contains(version, prereleases=True):
                raise ValueError(f"{wheel.name} needs {need}, but {version} is carried")
    return list(found.values())


def _needs(wheel: Path) -> list[Requirement]:
    """Requirements that apply there, without those of extras."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    needs = [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)]
    here = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.3", "extra": ""}
    here |= {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
    here |= {"platform_system": "Linux", "implementation_name": "cpython"}
    here |= {"platform_python_implementation": "CPython"}
    return [need for need in needs if need.marker is None or need.marker.evaluate(here)]


if __name__ == "__main__":
    main()
