"""Reads safetensors checkpoints of transformers 4 and 5; nothing else, and no pickle ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from pythia_bento.checkpoints import tensor_names
from pythia_bento.checkpoints.files import FileName
from pythia_bento.checkpoints.strict import Strict, check, parse_json, read_bytes
from pythia_bento.errors import CheckpointError
from pythia_bento.model.config import ModelConfig

if TYPE_CHECKING:  # it takes seconds, and only whoever asks for a tensor needs it
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
COPIED = (  # the other files, beside config.json
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
)
FLOATS = ("F16", "BF16", "F32")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Entry(NamedTuple):
    """Where one tensor lies."""

    file: Path
    stored_name: str
    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it: F16, BF16, F32, I8, U8, ...


class _Index(Strict):
    """``model.safetensors.index.json``: tensor -> file beside it.

    A name has no separator, so it leads out of the directory only by a link that whoever made the
    directory put there: the hub's own cache consists of such.
    """

    metadata: dict[str, Any] | None = None  # sizes, which nobody needs
    weight_map: dict[str, FileName]


Bring = Callable[["Tensor", Callable[[int], None]], "Tensor"]
"""Takes a tensor whose bytes may still be on their way, and what waits until so many of them, from
its first one on, are there; returns what is to be used in its place."""


def there(tensor: Tensor, until: Callable[[int], None]) -> Tensor:
    """A ``Bring`` that only waits."""
    until(tensor.nbytes)
    return tensor


class TensorFile:
    """A safetensors file on the disk, mapped anew by each who opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, framework: str) -> Any:
        """As ``safe_open``; raises CheckpointError."""
        return open_tensors(self.path, self.path, framework)

    def wait(self, stored_name: str, count: int) -> None:
        """Until a tensor's first ``count`` bytes can be read; raises CheckpointError if never."""

    def free(self) -> None:
        """All its tensors were asked for; it may be opened again nevertheless."""


class Reader:
    """The tensors of one checkpoint directory, checked against the model's shape on opening.

    They are read from ``files``; where none are given from those of the directory.

    Raises CheckpointError when a file is missing or damaged, or a tensor is missing, unknown, or
    of another shape than ``config`` says.
    """

    def __init__(
        self, directory: Path, config: ModelConfig, files: Sequence[TensorFile] | None = None
    ) -> None:
        if files is None:
            files = [TensorFile(path) for path in weight_files(directory)]
        self.files = [file.path for file in files]
        self._by_path = {file.path: file for file in files}
        self._entries: dict[str, Entry] = {}
        for file in files:
            self._index(file)
        self._check(directory, config)
        self._unread = {path: self._names_in(path) for path in self.files}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def quantized(self) -> bool:
        """Whether the files hold int8 linears already."""
        first = tensor_names.layer_prefix(0) + tensor_names.QKV
        return self.entry(f"{first}.weight").dtype == "I8"

    def entries(self) -> Iterable[tuple[str, Entry]]:
        """All tensors, by name."""
        return self._entries.items()

    def entry(self, name: str) -> Entry:
        """Raises KeyError for an unknown name."""
        return self._entries[name]

    def tensor(self, name: str, bring: Bring = there) -> Tensor:
        """One tensor as stored, or what ``bring`` makes of it.

        It may be a view of the mapped file. Each call maps a file of the disk anew, so that the
        pages a tensor touched stop counting against this process as soon as the tensor is dropped.
        """
        entry = self._entries[name]
        source = self._by_path[entry.file]
        with source.open("pt") as file:
            stored: Tensor = file.get_tensor(entry.stored_name)
        tensor = bring(stored, lambda count: source.wait(entry.stored_name, count))
        del stored
        unread = self._unread[entry.file]
        unread.discard(name)
        if not unread:
            self._by_path[entry.file].free()
            self._unread[entry.file] = self._names_in(entry.file)
        return tensor

    def _names_in(self, path: Path) -> set[str]:
        return {name for name, entry in self._entries.items() if entry.file == path}

    def _index(self, source: TensorFile) -> None:
        path = source.path
        with source.open("np") as file:  # only names and shapes
            for stored in file.keys():  # noqa: SIM118 - safe_open is not a mapping
                name = tensor_names.canonical(stored)
                if name is None:
                    continue
                if name in self._entries:
                    other = self._entries[name].file.name
                    raise CheckpointError(f"tensor {name} is in both {other} and {path.name}")
                view = file.get_slice(stored)
                shape = tuple(view.get_shape())
                self._entries[name] = Entry(path, stored, shape, view.get_dtype())

    def _check(self, directory: Path, config: ModelConfig) -> None:
        expected = tensor_names.shapes(config)
        if missing := sorted(expected.keys() - self._entries.keys()):
            more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
            raise CheckpointError(f"checkpoint {directory} lacks tensor {missing[0]}{more}")
        for name, entry in self._entries.items():
            wanted = expected.get(name) or _companion_shape(name, expected)
            if wanted is None:
                raise CheckpointError(
                    f"{entry.file} has tensor {entry.stored_name}, which no Pythia has"
                )
            _check_shape(entry, wanted)
            _check_dtype(name, entry)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one file, or all shards of an index."""
    if not directory.is_dir():
        raise CheckpointError(f"checkpoint directory does not exist: {directory}")
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        return _shards(directory / INDEX)
    pickles = sorted(p.name for p in directory.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{directory} has only pickle files ({', '.join(pickles)}), which can run code when "
            "read; convert them to safetensors"
        )
    raise CheckpointError(f"{directory} has neither {WEIGHTS} nor {INDEX}")


def _shards(index: Path) -> list[Path]:
    names = shard_names(read_bytes(index), index)
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(f"{index.parent} lacks {absent[0]}, which its index names")
    return [index.parent / name for name in names]


def shard_names(data: bytes, index: Path) -> list[str]:
    """The files that an index names; raises CheckpointError, in which it is called ``index``."""
    names = set(check(_Index, parse_json(data, str(index)), str(index)).weight_map.values())
    if not names:
        raise CheckpointError(f"{index} names no files")
    return sorted(names)


def open_tensors(place: str | Path, path: Path, framework: str) -> Any:
    """``safe_open`` of what lies at ``place`` and is called ``path``; raises CheckpointError."""
    try:
        return safe_open(place, framework=framework)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged: {error}") from None


def _companion_shape(name: str, expected: dict[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Shape of the extras beside an int8 ``weight``: SCB by row, and a scalar weight_format."""
    module, _, field = name.rpartition(".")
    weight = expected.get(f"{module}.weight", ())
    if len(weight) != 2:
        return None
    return {"SCB": weight[:1], "weight_format": ()}.get(field)


def _check_shape(entry: Entry, wanted: tuple[int, ...]) -> None:
    if entry.shape != wanted:
        raise CheckpointError(
            f"tensor {entry.stored_name} in {entry.file} has shape {list(entry.shape)}, but "
            f"config.json asks for {list(wanted)}"
        )


def _check_dtype(name: str, entry: Entry) -> None:
    """Weights of matrices may be int8; a scale is fp32; everything else is a float."""
    allowed: tuple[str, ...] = FLOATS
    if name.endswith(".weight") and len(entry.shape) == 2:
        allowed = (*FLOATS, "I8")
    elif name.endswith(".SCB"):
        allowed = ("F32",)
    elif name.endswith(".weight_format"):
        allowed = ("U8",)
    if entry.dtype not in allowed:
        raise CheckpointError(
            f"tensor {entry.stored_name} in {entry.file} is {entry.dtype}; "
            f"this package reads {', '.join(allowed)} there"
        )
