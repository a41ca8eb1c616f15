"""Compile the CPU kernels: ``python -m pythia_bento.model.kernels.cpu.build``.

Run as a file it needs nothing but Python. One shared library per instruction set, named after a
hash of its sources and flags, so a stale one is never loaded. Libraries are looked for beside the
sources, then in the user's cache directory, and are compiled into the first of the two that can be
written. What lies in a Bento stays as it was built.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
ZIG = [sys.executable, "-m", "ziglang", "c++"]
FLAGS = (
    *("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-pthread", "-g0"),
    *("-fno-exceptions", "-fno-rtti", "-fvisibility=hidden"),
    *("-Wall", "-Wno-psabi", "-Wno-unknown-warning-option"),
)
# zig would compile a C++ library first, for minutes on a slow machine: src/runtime.h stands in.
ZIG_FLAGS = ("-DPYTHIA_LINKS_NO_CXX", "-fvisibility-global-new-delete=force-hidden")
ZIG_LINK = ("-shared", "-nostdlib", "-Wl,-z,defs")
ZIG_LIBRARIES = ("-lc", "-lpthread")
# Without a target zig compiles for the very processor it runs on, whatever a variant's flags are.
ZIG_GLIBC = "2.28"  # the oldest that torch runs on
MACHINE = platform.machine()
AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
X86_VARIANTS = {
    "amx": (*AVX512, "-mamx-tile", "-mamx-int8"),
    "avx512": AVX512,
    "avxvnni": (*AVX2, "-mavxvnni"),
    "avx2": AVX2,
}
_AVX2_NEEDS = {"avx2", "fma", "f16c", "bmi2"}
_AVX512_NEEDS = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
NEEDED = {
    "amx": {*_AVX512_NEEDS, "amx_tile", "amx_int8"},
    "avx512": _AVX512_NEEDS,
    "avxvnni": {*_AVX2_NEEDS, "avx_vnni"},
    "avx2": _AVX2_NEEDS,
}
# AMX's instructions in plain C++: slow, for tests on machines without them.
EMULATED = {"amx-emulated": ("-DPYTHIA_EMULATED_TILES", "-O1")}


def variants(machine: str = MACHINE) -> dict[str, tuple[str, ...]]:
    """Instruction sets that can be compiled for an architecture, best first."""
    return {**(X86_VARIANTS if machine == "x86_64" else {}), "generic": ()}


def _flags_of(variant: str, machine: str = MACHINE) -> tuple[str, ...]:
    return {**variants(machine), **EMULATED}[variant]


def supported() -> list[str]:
    """Instruction sets that this machine can run, best first."""
    flags = _cpu_flags()
    return [name for name in variants() if NEEDED.get(name, set()) <= flags]


def library(variant: str) -> Path:
    """The compiled library of ``variant``, compiled now if there is none yet.

    Raises RuntimeError when there is no compiler or it fails; the message ends with its output.
    """
    name = file_name(variant)
    for folder in _folders():
        if (folder / name).exists():
            return folder / name
    for folder in _folders():
        if not _in_bento(folder) and _writable(folder):
            return _compile(variant, folder / name)
    raise RuntimeError(
        "no folder for the compiled CPU kernels can be written; name one with XDG_CACHE_HOME"
    )


def libraries(chosen: Sequence[str] | None = None) -> list[Path]:
    """The compiled libraries of the ``chosen`` variants, by default of all; raises RuntimeError."""
    if chosen is None:
        chosen = [*reversed(variants())]  # the longest to compile first
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(library, chosen))


def copy_libraries(folder: Path) -> None:
    """Put those of all variants into ``folder``, and no other; raises RuntimeError."""
    found = libraries()
    folder.mkdir(exist_ok=True)
    _remove_stale([folder])
    for path in found:
        shutil.copy(path, folder)


def compiler() -> list[str]:
    """The C++ compiler's command: $CXX, c++, g++, clang++, or the ``ziglang`` package."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return [name, "-static-libstdc++", "-static-libgcc"]
    if importlib.util.find_spec("ziglang"):
        return ZIG
    raise RuntimeError(
        "the CPU kernels need a C++ compiler once: install g++ or clang, or `pip install ziglang`"
    )


def commands(variant: str, target: str) -> list[list[str]]:
    """What compiles ``variant`` into the file ``target``; raises as ``compiler`` does."""
    command = compiler()
    if command == ZIG and sys.platform == "linux":
        return zig_commands(variant, target)
    flags = (*FLAGS, *_flags_of(variant))
    return [[*command, *flags, "-shared", str(SOURCES / "kernels.cpp"), "-o", target]]


def zig_commands(variant: str, target: str, machine: str = MACHINE) -> list[list[str]]:
    """What compiles ``variant`` for any Linux of an architecture, whatever machine does it."""
    source, compiled = str(SOURCES / "kernels.cpp"), f"{target}.o"
    system = ("-target", f"{machine}-linux-gnu.{ZIG_GLIBC}")
    flags = (*FLAGS, *_flags_of(variant, machine), *ZIG_FLAGS)
    return [
        [*ZIG, *system, *flags, "-c", source, "-o", compiled],
        [*ZIG[:-1], "cc", *system, *ZIG_LINK, compiled, *ZIG_LIBRARIES, "-o", target],
    ]


def file_name(variant: str, machine: str = MACHINE) -> str:
    """The file of ``variant``, with a hash of its architecture, sources and flags."""
    digest = hashlib.sha256(" ".join((machine, *FLAGS, *_flags_of(variant, machine))).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return f"pythia-{variant}-{digest.hexdigest()[:12]}.so"


def _compile(variant: str, path: Path) -> Path:
    """Compile in a folder beside ``path`` and move it there: never half a library."""
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=".part") as folder:
        target = os.path.join(folder, path.name)
        for command in commands(variant, target):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        os.chmod(target, 0o755)
        os.replace(target, path)
    return path


def _folders() -> Iterator[Path]:
    yield Path(__file__).parent / "lib"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    yield Path(cache) / "pythia-bento"


def _in_bento(folder: Path) -> bool:
    return any((parent / "bento.yaml").is_file() for parent in folder.parents)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _cpu_flags() -> set[str]:
    """Feature names as Linux spells them; empty elsewhere, where only ``generic`` runs."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), ":")
    return set(line.partition(":")[2].split())


def main(arguments: Sequence[str] = ()) -> None:
    """Compile every variant of this architecture, and remove what older sources left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--native", action="store_true", help="only the one this machine runs")
    native = parser.parse_args(arguments).native
    paths = libraries(supported()[:1] if native else None)
    for path in paths:
        print(f"cpu kernels: {path.name}", flush=True)
    _remove_stale({path.parent for path in paths})


def _remove_stale(folders: Iterable[Path]) -> None:
    current = {file_name(variant) for variant in (*variants(), *EMULATED)}
    for stale in (path for folder in folders for path in folder.glob("pythia-*.so")):
        if stale.name not in current:
            stale.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
