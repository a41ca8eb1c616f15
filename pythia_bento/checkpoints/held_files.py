"""Weight files that are read once: what was hashed is what tensors are made of.

A file is copied into memory that has no name and that nobody can write to any more; its bytes are
hashed on the way and compared with the hash that was recorded. What happens to the file on the disk
after that changes nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pythia_bento.catalog import parameters
from pythia_bento.checkpoints.config_file import parse_config
from pythia_bento.checkpoints.files import is_weights
from pythia_bento.checkpoints.quantize import CheckpointWeights
from pythia_bento.checkpoints.reader import (
    INDEX,
    WEIGHTS,
    TensorFile,
    open_tensors,
    shard_names,
)
from pythia_bento.checkpoints.strict import MAX_JSON_BYTES, parse_json
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer_bytes
from pythia_bento.errors import CheckpointError, shown
from pythia_bento.model.config import ModelConfig

JOBS = 4  # files that are read and hashed at a time; a core makes one to two GB/s of sha256
_CHUNK = 1 << 20
_MAX_HEADER = 100_000_000  # bytes, by safetensors
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # as of ``files.FileName``
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class ReadOnce(CheckpointWeights):
    """A ``WeightSource`` whose files were read, hashed and found to be those recorded.

    All weight files are in memory from the beginning, each until the last of its tensors was asked
    for and dropped. Beside what a backend keeps that is at first the size of the files; it shrinks
    file by file as layers are packed, of a checkpoint that is one file only at the end. What is
    asked for a second time is read, and compared, once more.
    """

    def __init__(
        self,
        id: str,
        directory: Path,
        files: Mapping[str, str],
        config: ModelConfig,
        jobs: int = JOBS,
    ) -> None:
        """Read ``files``, name -> sha256, of a directory; ``id`` is what errors call it.

        Raises CheckpointError for what is missing, changed, or no Pythia of this shape, and
        MemoryError.
        """
        with ExitStack() as undo:  # an error that is kept must not keep what was read
            folder = _Folder(id, directory, files)
            undo.callback(folder.close)
            held = self._hold(folder, config, jobs, undo)
            super().__init__(directory, config, held)
            undo.pop_all()

    def _hold(
        self, folder: _Folder, config: ModelConfig, jobs: int, undo: ExitStack
    ) -> list[_HeldFile]:
        """Read all that was recorded; the small files are looked at first."""
        files, directory = folder.files, folder.path
        beside = {name: folder.read(name) for name in files if not is_weights(name)}
        if absent := [name for name in ("config.json", "tokenizer.json") if name not in beside]:
            raise folder.error(f"{absent[0]} was not recorded")
        self.tokenizer: bytes = beside["tokenizer.json"]
        check_tokenizer_bytes(self.tokenizer, directory / "tokenizer.json", config)
        _check_shape(folder, beside["config.json"], config)
        held = [_HeldFile(folder, name, _limit(config)) for name in _weights(folder, beside)]
        for file in held:
            undo.callback(file.free)
        with ThreadPoolExecutor(max(1, min(jobs, len(held)))) as pool:
            list(pool.map(_HeldFile.hold, held))
        return held


class _Folder:
    """A directory held open: all files come from this one, whatever takes its name meanwhile."""

    def __init__(self, id: str, path: Path, files: Mapping[str, str]) -> None:
        self.path, self.files, self._id = path, files, id
        for name in files:
            if not _NAME.fullmatch(name):
                raise self.error(f"{shown(name)} is no file of its directory")
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self.error(f"{path} cannot be read: {error.strerror}") from None
        self.close = weakref.finalize(self, os.close, self._descriptor)

    def error(self, problem: str) -> CheckpointError:
        """An error that says of what the problem is one."""
        return CheckpointError(f"{self._id} will not be served: {problem}")

    def read(self, name: str) -> bytes:
        """A small file, compared with its hash."""
        content = bytearray()
        self.copy(name, content.extend, MAX_JSON_BYTES)
        return bytes(content)

    def copy(self, name: str, take: Callable[[memoryview], object], limit: int) -> None:
        """Hand all bytes of a file to ``take``; raises CheckpointError unless they are recorded.

        A link is followed, as installers make some: the hash says whether it leads to the right
        bytes. What is no file, or larger than ``limit``, is not read.
        """
        try:
            digest = self._copy(name, take, limit)
        except FileNotFoundError:
            raise self.error(f"{name} is missing") from None
        except OSError as error:
            raise self.error(f"{name} cannot be read: {error.strerror}") from None
        if digest != self.files[name]:
            raise self.error(f"{name} has sha256 {digest}, not {self.files[name]}")

    def _copy(self, name: str, take: Callable[[memoryview], object], limit: int) -> str:
        # Nobody waits for who writes to a pipe of that name.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._descriptor)
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self.error(f"{name} is not a file")
            digest, buffer, total = hashlib.sha256(), memoryview(bytearray(_CHUNK)), 0
            while count := file.readinto(buffer):
                total += count
                if total > limit:
                    raise self.error(f"{name} has more than {limit} bytes, the limit for its kind")
                digest.update(buffer[:count])
                take(buffer[:count])
            return digest.hexdigest()


class _HeldFile(TensorFile):
    """A safetensors file in memory; read anew if it is asked for after it was freed."""

    def __init__(self, folder: _Folder, name: str, limit: int) -> None:
        super().__init__(folder.path / name)
        self._folder, self._limit = folder, limit
        self._memory: _Memory | None = None

    def hold(self) -> _Memory:
        """Read it unless it is held."""
        if self._memory is None:
            memory = _Memory()
            try:
                self._folder.copy(self.path.name, memory.write, self._limit)
                memory.seal()
            except BaseException:
                memory.close()
                raise
            self._memory = memory
        return self._memory

    def open(self, framework: str) -> Any:
        """See TensorFile."""
        return open_tensors(self.hold().place, self.path, framework)

    def free(self) -> None:
        """See TensorFile; tensors that are in use keep their memory."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None


class _Memory:
    """A file without a name that lies in memory, for whoever can only read files."""

    def __init__(self) -> None:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self._descriptor = os.memfd_create("pythia-weights", flags)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        self.place = f"/proc/self/fd/{self._descriptor}"

    def write(self, data: memoryview) -> None:
        """Add to its end; raises MemoryError."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except OSError as error:  # not to be taken for one of the file that is read
                raise MemoryError(f"no room for weights: {error.strerror}") from None

    def seal(self) -> None:
        """Let nobody change it from now on, not even this process."""
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)


def _weights(folder: _Folder, beside: Mapping[str, bytes]) -> list[str]:
    """The files that hold tensors, all of them recorded ones."""
    if WEIGHTS in folder.files:
        return [WEIGHTS]
    if INDEX not in beside:
        raise folder.error(f"neither {WEIGHTS} nor {INDEX} was recorded")
    names = shard_names(beside[INDEX], folder.path / INDEX)
    if unknown := [name for name in names if name not in folder.files]:
        raise folder.error(f"{unknown[0]}, which {INDEX} names, was not recorded")
    return names


def _check_shape(folder: _Folder, data: bytes, config: ModelConfig) -> None:
    path = folder.path / "config.json"
    if parse_config(parse_json(data, str(path)), str(path)) != config:
        raise folder.error("config.json is of another shape than it was")


def _limit(config: ModelConfig) -> int:
    """Bytes that no file of this shape exceeds: all in fp32, and the masks of old versions."""
    masks = 4 * config.num_layers * config.max_positions**2
    return 4 * parameters(config) + masks + _MAX_HEADER
