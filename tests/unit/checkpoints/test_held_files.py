"""Tensors are made of the bytes that were hashed, whatever happens to the files meanwhile."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pythia_bento.checkpoints import arriving, files, held_files
from pythia_bento.checkpoints.bundle import list_bundled
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.quantize import CheckpointWeights
from pythia_bento.checkpoints.read_once import open_entry
from pythia_bento.checkpoints.save import save_int8
from pythia_bento.checkpoints.shelf import ShelfEntry, entry_of
from pythia_bento.errors import CheckpointError
from pythia_bento.model.weights import WeightSource
from tests.models import random_checkpoint
from tests.unit.checkpoints.conftest import edit


@pytest.fixture
def entry(original: Path, tmp_path: Path) -> ShelfEntry:
    """A checkpoint in 8 bits, in six files."""
    path = tmp_path / "int8"
    source = CheckpointWeights(original, read_config(original / "config.json"))
    save_int8(source, original, path, shard_bytes=1)
    return entry_of(load_checkpoint(str(path)))


@pytest.fixture
def single(copy: Path) -> ShelfEntry:
    """A checkpoint in one file of fp16."""
    return entry_of(load_checkpoint(str(copy)))


def tensors(source: WeightSource) -> Iterator[Tensor]:
    yield source.embedding()
    head = source.head()
    yield from (head.norm.weight, head.norm.bias, head.weight)
    for index in range(source.config.num_layers):
        layer = source.layer(index)
        for linear in (layer.qkv, layer.dense, layer.up, layer.down):
            yield from (linear.weight, linear.scb, linear.bias)
        for norm in (layer.input_norm, layer.post_attention_norm):
            yield from (norm.weight, norm.bias)


def values(source: WeightSource) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors(source)]


def equal(one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def refusal(entry: ShelfEntry) -> str:
    """Of whoever asks for a whole model."""
    with pytest.raises(CheckpointError) as caught:
        values(open_entry(entry))
    assert caught.value.message.startswith(f"{entry.name} will not be served: ")
    return caught.value.message


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_same_tensors_as_read_from_the_files(entry: ShelfEntry, jobs: int) -> None:
    opened = open_entry(entry, jobs)
    assert len(opened.reader.files) > 3
    assert equal(values(opened), values(CheckpointWeights(entry.path, entry.config)))
    assert opened.tokenizer == (entry.path / "tokenizer.json").read_bytes()
    assert opened.config == entry.config


def elsewhere(tensor: Tensor, until: Callable[[int], None]) -> Tensor:
    until(tensor.nbytes)
    return tensor.clone()


@pytest.mark.parametrize("kind", ["entry", "single"])
def test_what_is_brought_elsewhere_is_the_same(kind: str, request: pytest.FixtureRequest) -> None:
    """As stored, or as quantised on the way."""
    one: ShelfEntry = request.getfixturevalue(kind)
    wanted = values(CheckpointWeights(one.path, one.config))
    assert equal(values(open_entry(one, bring=elsewhere)), wanted)


def memories() -> int:
    """Files of weights that lie in memory."""
    found = 0
    for place in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the directory itself
            found += "pythia-weights" in os.readlink(place)
    return found


def test_few_files_stay_in_memory_until_it_is_closed(entry: ShelfEntry) -> None:
    gc.collect()
    before, opened = memories(), open_entry(entry, 1)
    for _ in range(2):  # read once, and once more
        values(opened)
        assert len(opened._readers.freed) <= 2
    opened.close()
    assert memories() <= before


def test_every_bundled_step_opens() -> None:
    for step in list_bundled():
        loaded = load_checkpoint(step.model_id)
        opened = open_entry(entry_of(loaded))
        assert equal(values(opened), values(CheckpointWeights(loaded.path, loaded.config)))


def _overwritten(path: Path) -> None:
    """In place, as whoever has it open or mapped would see it."""
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def _cut(path: Path) -> None:
    os.truncate(path, 0)


def _removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [_overwritten, _cut, _removed])
@pytest.mark.parametrize("kind", ["entry", "single"])
def test_what_changes_after_the_hash_changes_nothing(
    request: pytest.FixtureRequest, kind: str, change: Callable[[Path], None]
) -> None:
    one: ShelfEntry = request.getfixturevalue(kind)
    wanted, opened = values(open_entry(one)), open_entry(one)
    opened.verify()
    for path in opened.reader.files:
        change(path)
    assert equal(values(opened), wanted)


@pytest.mark.parametrize("seal", [arriving._FUTURE_WRITE, 1 << 30])  # which no system knows
def test_nobody_writes_to_what_was_hashed(
    single: ShelfEntry, monkeypatch: pytest.MonkeyPatch, seal: int
) -> None:
    monkeypatch.setattr(arriving, "_FUTURE_WRITE", seal)
    opened = open_entry(single)
    [held] = opened.reader._by_path.values()
    assert isinstance(held, held_files.HeldFile)
    held.verify()
    assert held._arrival is not None
    descriptor = os.open(held._arrival.memory.place, os.O_RDWR)
    with pytest.raises(PermissionError):
        os.write(descriptor, b"\xff" * 4096)
    os.close(descriptor)


def test_a_file_changed_between_two_loads_is_named(entry: ShelfEntry) -> None:
    first = values(open_entry(entry))
    for name in entry.files:
        path = entry.path / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        message = refusal(entry)
        assert f": {name} has sha256 " in message
        assert message.endswith(f", not {entry.files[name]}")
        path.write_bytes(content)
    assert equal(values(open_entry(entry)), first)


def test_what_is_asked_for_twice_is_compared_twice(single: ShelfEntry) -> None:
    opened = open_entry(single)
    first = values(opened)
    assert equal(values(opened), first)
    _overwritten(single.path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"copy will not be served: model.safetensors has sh"):
        opened.embedding()


def test_files_are_read_once(entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = arriving.Folder.open

    def noted(self: arriving.Folder, name: str, limit: int) -> arriving.Source:
        read.append(name)
        return inner(self, name, limit)

    monkeypatch.setattr(arriving.Folder, "open", noted)
    values(open_entry(entry))
    assert sorted(read) == sorted(entry.files)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_truncated_and_a_missing_file_are_named(single: ShelfEntry, name: str) -> None:
    path = single.path / name
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{name} has sha256" in refusal(single)
    path.unlink()
    assert refusal(single).endswith(f"{name} is missing")
    shutil.rmtree(single.path)
    assert "cannot be read: No such file" in refusal(single)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_link_counts_for_what_it_leads_to(single: ShelfEntry, tmp_path: Path, name: str) -> None:
    path, outside = single.path / name, tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    values(open_entry(single))
    outside.write_bytes(b"a secret")
    message = refusal(single)
    assert f"{name} has sha256" in message
    assert "secret" not in message
    for place, words in {"/dev/zero": "is not a file", "/no/such": "is missing"}.items():
        path.unlink()
        path.symlink_to(place)
        assert refusal(single).endswith(f"{name} {words}")
    path.unlink()
    os.mkfifo(path)
    assert refusal(single).endswith(f"{name} is not a file")


def test_a_file_without_end_is_not_read_to_it(single: ShelfEntry) -> None:
    with (single.path / "tokenizer.json").open("r+b") as file:
        file.truncate(10**12)
    assert "tokenizer.json has more than 67108864 bytes" in refusal(single)
    with (single.path / "model.safetensors").open("r+b") as file:
        file.truncate(10**12)
    assert "model.safetensors has more than 10" in refusal(single)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b", "..", ""])
def test_a_name_leads_to_no_other_place(single: ShelfEntry, name: str) -> None:
    told = replace(single, files={**single.files, name: "0" * 64})
    assert "is no file of its directory" in refusal(told)


def test_only_recorded_files_are_read(entry: ShelfEntry) -> None:
    """Where there are shards a whole file that turns up beside them means nothing."""
    first = values(open_entry(entry))
    (entry.path / "model.safetensors").write_bytes(b"not one of them")
    assert equal(values(open_entry(entry)), first)
    shard = next(name for name in sorted(entry.files) if name.endswith("safetensors"))
    fewer = {name: digest for name, digest in entry.files.items() if name != shard}
    assert f"{shard}, which model.safetensors.index.json names, was not recorded" in refusal(
        replace(entry, files=fewer)
    )
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        fewer = {other: digest for other, digest in entry.files.items() if other != name}
        assert name in refusal(replace(entry, files=fewer))


def test_what_was_recorded_and_is_no_pythia_is_refused(single: ShelfEntry) -> None:
    """Hashes say that bytes are the right ones, not that they make sense."""
    edit(single.path, lambda stored: {k: v for k, v in stored.items() if "embed_out" not in k})
    digest = files.sha256(single.path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks tensor embed_out\.weight"):
        open_entry(replace(single, files={**single.files, "model.safetensors": digest}))
    other = replace(single.config, num_layers=1)
    assert "config.json is of another shape" in refusal(replace(single, config=other))


def test_no_descriptor_and_no_memory_is_left(entry: ShelfEntry) -> None:
    def held(source: held_files.ReadOnce) -> int:
        sources = source.reader._by_path.values()
        return sum(isinstance(f, held_files.HeldFile) and f.is_held for f in sources)

    values(open_entry(entry))
    before = open_files()
    opened = open_entry(entry)
    assert held(opened) == len(opened.reader.files)
    opened.embedding(), opened.layer(0)
    assert 0 < held(opened) < len(opened.reader.files)
    opened.layer(1), opened.head()
    assert held(opened) == 0
    del opened
    shards = sorted(entry.path.glob("*.safetensors"))
    shards[-1].write_bytes(b"")
    with pytest.raises(CheckpointError) as kept, closing(open_entry(entry)) as damaged:
        values(damaged)
    assert open_files() == before
    assert kept.value.message  # whoever keeps an error keeps no file with it


def test_the_directory_that_was_opened_is_the_one_that_is_read(
    single: ShelfEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull may put another one in its place meanwhile."""
    inner = held_files._weights

    def replaced(*arguments: object) -> list[str]:
        single.path.rename(tmp_path / "old")
        random_checkpoint(single.path, heads=2, seed=9)
        return inner(*arguments)  # type: ignore[arg-type]

    wanted = values(open_entry(single))
    monkeypatch.setattr(held_files, "_weights", replaced)
    assert equal(values(open_entry(single)), wanted)


def test_no_memory_is_an_error_of_its_own(
    single: ShelfEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can free some may try again, which a damaged file would not be helped by."""
    before = open_files()

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(arriving.os, "pwrite", full)
    with pytest.raises(MemoryError, match="no room for weights: Cannot allocate memory"):
        values(open_entry(single))
    assert open_files() == before
