"""CUDA C++ compiled by NVRTC for the device at hand, and launched on torch's current stream.

NVRTC and its Python bindings come with torch's CUDA wheels: no toolkit has to be installed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from cuda.bindings import driver, nvrtc

from pythia_bento.hardware import usable_cores


class Kernel:
    """One ``extern "C"`` kernel whose parameter is one structure, passed by value."""

    def __init__(self, binary: bytes, name: str, shared_bytes: int) -> None:
        """Load what ``build`` made; raises RuntimeError where the device refuses it."""
        torch.zeros(1, device="cuda")  # the driver wants a context, which torch makes when it must
        self._module = _check(driver.cuModuleLoadData(binary))
        self._function = _check(driver.cuModuleGetFunction(self._module, name.encode()))
        self._shared_bytes = shared_bytes
        attribute = driver.CUfunction_attribute
        limit = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _check(driver.cuFuncSetAttribute(self._function, limit, shared_bytes))

    def launch(self, blocks: int, threads: int, parameter: ctypes.Array[ctypes.c_char]) -> None:
        """Blocks that need not run at once."""
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(parameter))
        stream = torch.cuda.current_stream().cuda_stream
        _check(
            driver.cuLaunchKernel(
                self._function,
                *(blocks, 1, 1),
                *(threads, 1, 1),
                self._shared_bytes,
                stream,
                ctypes.addressof(pointers),
                0,
            )
        )

    def launch_cooperative(self, blocks: int, threads: int, parameter: ctypes.Structure) -> None:
        """All blocks at once: the driver refuses a grid that the device cannot hold."""
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(parameter))
        stream = torch.cuda.current_stream().cuda_stream
        _check(
            driver.cuLaunchCooperativeKernel(
                self._function,
                *(blocks, 1, 1),
                *(threads, 1, 1),
                self._shared_bytes,
                stream,
                ctypes.addressof(pointers),
            )
        )


class Source(NamedTuple):
    """What is compiled: ``constants`` are macros.

    ``headers`` join those of the file's folder and the one above.
    """

    path: Path
    constants: Mapping[str, int]
    headers: Mapping[str, str] = MappingProxyType({})


def build(sources: Sequence[Source]) -> list[bytes]:
    """Machine code of each for the device at hand, compiled side by side.

    Raises RuntimeError with the compiler's words.
    """
    major, minor = torch.cuda.get_device_capability()
    architecture = f"sm_{major}{minor}" + ("a" if major == 9 else "")
    with ThreadPoolExecutor(max(1, min(len(sources), usable_cores()))) as threads:
        return list(threads.map(lambda source: compiled(source, architecture), sources))


def compiled(source: Source, architecture: str) -> bytes:
    """Machine code, from the user's cache directory where it was compiled before. Needs no GPU."""
    options = [f"--gpu-architecture={architecture}", "--std=c++17"]
    options += [f"-D{name}={value}" for name, value in sorted(source.constants.items())]
    folder = source.path.parent
    paths = (source.path, *sorted(folder.glob("*.cuh")), *sorted(folder.parent.glob("*.cuh")))
    texts = {path.name: path.read_bytes() for path in paths}
    texts |= {name: text.encode() for name, text in source.headers.items()}
    _, *version = nvrtc.nvrtcVersion()
    key = hashlib.sha256(repr((texts, options, version)).encode()).hexdigest()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = root / "pythia-bento" / f"{source.path.stem}-{key[:16]}.cubin"
    try:
        return path.read_bytes()
    except OSError:
        binary = _compile(source.path.name, texts, options)
    _keep(path, binary)
    return binary


def _compile(name: str, texts: dict[str, bytes], options: list[str]) -> bytes:
    headers = [header for header in texts if header != name]
    program = _check(
        nvrtc.nvrtcCreateProgram(
            texts[name],
            name.encode(),
            len(headers),
            [texts[header] for header in headers],
            [header.encode() for header in headers],
        )
    )
    words = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(words), words)
    if int(status):
        log = b" " * _check(nvrtc.nvrtcGetProgramLogSize(program))
        _check(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"{name} does not compile: {log.decode(errors='replace')}")
    binary: bytes = b" " * _check(nvrtc.nvrtcGetCUBINSize(program))
    _check(nvrtc.nvrtcGetCUBIN(program, binary))
    _check(nvrtc.nvrtcDestroyProgram(program))
    return binary


def _keep(path: Path, binary: bytes) -> None:
    """Write whole or not at all. Without a cache each start takes some seconds longer."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(binary)
        os.replace(file.name, path)
    except OSError:
        return


def _check(result: tuple[Any, ...]) -> Any:
    """The value of a call; raises RuntimeError when it failed."""
    status, *values = result
    if int(status):
        raise RuntimeError(f"CUDA call failed: {status.name}")
    return values[0] if values else None
