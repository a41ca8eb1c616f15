"""Weight files that are read once: what was hashed is what tensors are made of.

Parts of a model are handed out as soon as their bytes are there, the last of them when all bytes
were compared with the hashes that were recorded: whoever has a whole model has a verified one.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pythia_bento.catalog import parameters
from pythia_bento.checkpoints import tensor_names
from pythia_bento.checkpoints.arriving import Arrival, Folder, Memory
from pythia_bento.checkpoints.config_file import parse_config
from pythia_bento.checkpoints.files import is_weights
from pythia_bento.checkpoints.quantize import CheckpointWeights
from pythia_bento.checkpoints.reader import (
    INDEX,
    WEIGHTS,
    Bring,
    TensorFile,
    open_tensors,
    shard_names,
    there,
)
from pythia_bento.checkpoints.reading_threads import Readers
from pythia_bento.checkpoints.strict import parse_json
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer_bytes
from pythia_bento.errors import CheckpointError
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.weights import HeadWeights, LayerWeights, Part, parts

if TYPE_CHECKING:  # it takes seconds, and only whoever asks for a tensor needs it
    from torch import Tensor

JOBS = 4  # files that are read and hashed at a time; a core makes one to two GB/s of sha256
_MAX_HEADER = 100_000_000  # bytes, by safetensors
_LENGTH = 8  # bytes that say how long the header is that follows
_T = TypeVar("_T")


class ReadOnce(CheckpointWeights):
    """A ``WeightSource`` whose files are those recorded, each read and hashed once.

    All weight files come to memory, each until the last of its tensors was asked for and dropped.
    Beside what a backend keeps that is at most the size of the files; it shrinks file by file as
    layers are packed, but for the last few files, which go at the end. What is asked for a second
    time is read, and compared, once more.

    A part that is handed out may be of bytes that nobody has compared yet. The call that hands out
    the last one waits for that, and raises CheckpointError for a file that is another.
    """

    def __init__(
        self,
        id: str,
        directory: Path,
        files: Mapping[str, str],
        config: ModelConfig,
        jobs: int = JOBS,
        bring: Bring = there,
        on_read: Callable[[], None] | None = None,
    ) -> None:
        """Begin to read ``files``, name -> sha256, of a directory; ``id`` is what errors call it.

        ``bring`` and ``on_read`` as of ``read_once.open_entry``.

        Raises CheckpointError for what is missing, changed, or no Pythia of this shape, and
        MemoryError.
        """
        self._missing = set(parts(config))
        with ExitStack() as undo:  # an error that is kept must not keep what was read
            self._held: list[HeldFile] = []
            self._folder = Folder(id, directory, files)
            self._readers = Readers(jobs, on_read)
            undo.callback(self.close)
            weakref.finalize(self, self._readers.stop)
            self._begin(config)
            with self._verified_if_refused():
                super().__init__(directory, config, self._held, bring)
            undo.pop_all()

    def _begin(self, config: ModelConfig) -> None:
        """Read all that was recorded; the small files are looked at meanwhile."""
        folder = self._folder
        beside = {INDEX: folder.read(INDEX)} if INDEX in folder.files else {}
        for name in _weights(folder, beside):
            self._held.append(HeldFile(folder, name, _limit(config), self._readers))
        self._readers.left = len(self._held)
        for file in self._held:
            file.begin()
        others = (name for name in folder.files if name not in beside and not is_weights(name))
        beside |= {name: folder.read(name) for name in others}
        if absent := [name for name in ("config.json", "tokenizer.json") if name not in beside]:
            raise folder.error(f"{absent[0]} was not recorded")
        self.tokenizer: bytes = beside["tokenizer.json"]
        check_tokenizer_bytes(self.tokenizer, folder.path / "tokenizer.json", config)
        _check_shape(folder, beside["config.json"], config)

    def close(self) -> None:
        """Give up what is not there yet, and drop all files; harmless when repeated."""
        self._readers.close()
        for file in self._held:
            file.drop()
        self._folder.close()

    def order(self) -> Iterator[Part]:
        """See ``WeightSource``: each as soon as all its bytes are there, but for the last one.

        That has nothing to wait for: its tensors are brought as they arrive.
        """
        places: dict[Part, list[tuple[HeldFile, str]]] = {part: [] for part in parts(self.config)}
        by_path = {file.path: file for file in self._held}
        for name, entry in self.reader.entries():
            places[tensor_names.part_of(name)].append((by_path[entry.file], entry.stored_name))

        def there() -> list[Part]:
            return [part for part, tensors in places.items() if all(f.has(n) for f, n in tensors)]

        while len(places) > 1:
            with self._readers.news:
                part = self._readers.news.wait_for(there)[0]
            del places[part]
            yield part
        yield from places

    def embedding(self) -> Tensor:
        """See ``WeightSource``, here and below."""
        return self._part("embedding", super().embedding)

    def layer(self, index: int) -> LayerWeights:  # noqa: D102
        return self._part(index, lambda: super(ReadOnce, self).layer(index))

    def head(self) -> HeadWeights:  # noqa: D102
        return self._part("head", super().head)

    def _part(self, part: Part, get: Callable[[], _T]) -> _T:
        self._readers.drop()
        with self._verified_if_refused():
            found = get()
        self._missing.discard(part)
        if not self._missing:
            self.verify()
        return found

    @contextmanager
    def _verified_if_refused(self) -> Iterator[None]:
        """What is wrong with bytes that are not the recorded ones is that they are not."""
        try:
            yield
        except CheckpointError:
            self.verify()
            raise

    def verify(self) -> None:
        """Wait until all files are those recorded; raises CheckpointError for one that is not."""
        for file in self._held:
            file.verify()


class HeldFile(TensorFile):
    """A safetensors file in memory; read anew if it is asked for after it was freed."""

    def __init__(self, folder: Folder, name: str, limit: int, readers: Readers) -> None:
        super().__init__(folder.path / name)
        self._folder, self._limit, self._readers = folder, limit, readers
        self._arrival: Arrival | None = None
        self._ranges: dict[str, tuple[int, int]] = {}  # of tensors, by the names they have here
        self._opened: Any = None  # of what arrived: to read the header again takes a millisecond

    @property
    def is_held(self) -> bool:
        """Whether it takes memory."""
        return self._arrival is not None

    def begin(self) -> Arrival:
        """Let it be read; raises CheckpointError where there is nothing to be read."""
        arrival = Arrival(self._folder, self.path.name, self._limit, self._readers)
        self._readers.look(arrival.begin)
        self._arrival = arrival
        return arrival

    def open(self, framework: str) -> AbstractContextManager[Any]:
        """See TensorFile."""
        if framework != "pt":
            return nullcontext(self._open(framework))
        if self._opened is None:
            self._opened = self._open(framework)
        return nullcontext(self._opened)

    def _open(self, framework: str) -> Any:
        arrival = self._arrival
        if arrival is None:
            arrival = self.begin()
            arrival.verify()
        end = _header_end(arrival)
        file = open_tensors(arrival.memory.place, self.path, framework)
        if not self._ranges:
            self._ranges = _ranges(arrival, end)
        return file

    def has(self, stored_name: str) -> bool:
        """Whether all of a tensor can be read, or never will be."""
        return self._arrival is None or self._arrival.has(*self._ranges[stored_name])

    def wait(self, stored_name: str, count: int) -> None:
        """See TensorFile."""
        if self._arrival is not None:
            start, end = self._ranges[stored_name]
            self._arrival.wait(start, min(start + count, end))

    def verify(self) -> None:
        """Until all of it is there; raises CheckpointError unless it is what was recorded."""
        if self._arrival is not None:
            self._arrival.verify()

    def free(self) -> None:
        """See TensorFile; its memory is dropped when the next part is asked for."""
        self.verify()
        if self._arrival is not None:
            self._readers.freed.append(_Mapped(self._opened, self._arrival.memory))
            self._arrival = self._opened = None

    def drop(self) -> None:
        """Let go of its memory; nobody reads it any more, or it was verified."""
        if self._arrival is not None:
            self._arrival.memory.close()
            self._arrival = self._opened = None


class _Mapped:
    """Memory, and what has it mapped: to take that back is what takes longest."""

    def __init__(self, opened: Any, memory: Memory) -> None:
        self._opened, self._memory = opened, memory

    def close(self) -> None:
        """Give it back."""
        self._opened = None
        self._memory.close()


def _header_end(arrival: Arrival) -> int:
    """Where a file's header ends, once it is there; of a damaged one any place in it."""
    start = min(_LENGTH, arrival.size)
    arrival.wait(0, start)
    length = int.from_bytes(arrival.memory.read(0, start), "little")
    end = min(start + length, arrival.size)
    arrival.wait(0, end)
    return end


def _ranges(arrival: Arrival, end: int) -> dict[str, tuple[int, int]]:
    """Where tensors begin and end, by a header that the library has found sound."""
    header = json.loads(arrival.memory.read(_LENGTH, end))
    offsets = {name: one["data_offsets"] for name, one in header.items() if name != "__metadata__"}
    return {name: (end + first, end + last) for name, (first, last) in offsets.items()}


def _weights(folder: Folder, beside: Mapping[str, bytes]) -> list[str]:
    """The files that hold tensors, all of them recorded ones."""
    if WEIGHTS in folder.files:
        return [WEIGHTS]
    if INDEX not in beside:
        raise folder.error(f"neither {WEIGHTS} nor {INDEX} was recorded")
    names = shard_names(beside[INDEX], folder.path / INDEX)
    if unknown := [name for name in names if name not in folder.files]:
        raise folder.error(f"{unknown[0]}, which {INDEX} names, was not recorded")
    return names


def _check_shape(folder: Folder, data: bytes, config: ModelConfig) -> None:
    path = folder.path / "config.json"
    if parse_config(parse_json(data, str(path)), str(path)) != config:
        raise folder.error("config.json is of another shape than it was")


def _limit(config: ModelConfig) -> int:
    """Bytes that no file of this shape exceeds: all in fp32, and the masks of old versions."""
    masks = 4 * config.num_layers * config.max_positions**2
    return 4 * parameters(config) + masks + _MAX_HEADER
