"""From names to checkpoints: bundled steps, local directories, and clear refusals."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import tokenizers
import torch

from pythia_bento.checkpoints.bundle import MANIFEST, list_bundled
from pythia_bento.checkpoints.checkpoint import find_checkpoint, load_checkpoint
from pythia_bento.checkpoints.files import sha256
from pythia_bento.checkpoints.held_files import ReadOnce
from pythia_bento.errors import CheckpointError, ModelNotFound
from pythia_bento.model.kernels import create
from pythia_bento.model.pack import pack
from tests.models import random_checkpoint


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A bundle of two steps with the same files."""
    steps = {}
    for number, step in enumerate(("step64", "step0", "step3000")):
        directory = Path(shutil.copytree(original, tmp_path / "bundle" / step))
        files = {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size": path.stat().st_size,
            }
            for path in directory.iterdir()
        }
        steps[step] = {"commit": str(number) * 40, "files": files}
    text = json.dumps({"main": "step3000", "steps": steps})
    (tmp_path / "bundle" / MANIFEST).write_text(text)
    return tmp_path / "bundle"


def test_the_packaged_checkpoint_opens() -> None:
    checkpoint = load_checkpoint("bundled")
    main = next(step for step in list_bundled() if step.is_main)
    assert checkpoint.model_id == "bundled"
    assert checkpoint.revision == main.step
    assert checkpoint.commit == main.commit
    assert checkpoint.files == {name: sha256(checkpoint.path / name) for name in main.files}
    assert "quantised at load as bitsandbytes does it" in checkpoint.quantization
    tokenizer = tokenizers.Tokenizer.from_file(str(checkpoint.tokenizer_path))
    assert tokenizer.get_vocab_size() <= checkpoint.config.vocab_size
    assert checkpoint.source.embedding().shape[0] == checkpoint.config.vocab_size


def test_every_packaged_step_is_whole() -> None:
    steps = list_bundled()
    assert len(steps) >= 6
    assert sum(step.nbytes for step in steps) <= 12e6
    assert sum(step.is_main for step in steps) == 1
    for step in steps:
        assert load_checkpoint(step.model_id).commit == step.commit
        assert load_checkpoint(f"bundled@{step.commit}").revision == step.step


def test_steps_are_listed_in_training_order(root: Path) -> None:
    assert [step.step for step in list_bundled(root)] == ["step0", "step64", "step3000"]


@pytest.mark.parametrize(
    "name", ["bundled", "bundled@main", "bundled@step3000", "bundled@" + "2" * 40]
)
def test_names_of_the_main_step(root: Path, name: str) -> None:
    checkpoint = load_checkpoint(name, root)
    assert (checkpoint.revision, checkpoint.commit) == ("step3000", "2" * 40)


def test_an_unknown_step_is_answered_with_the_nearest(root: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"'step2000'; the nearest steps are .*, step3000$"):
        load_checkpoint("bundled@step2000", root)


@pytest.mark.parametrize("revision", ["tuesday", "step-1"])
def test_an_unknown_revision_is_answered_with_all(root: Path, revision: str) -> None:
    hint = f"'{revision}'; it has main, step0, step64, step3000$"
    with pytest.raises(ModelNotFound, match=hint):
        load_checkpoint(f"bundled@{revision}", root)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_file_is_named(root: Path, name: str) -> None:
    path = root / "step0" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"has sha256 \w{64}, not") as caught:
        load_checkpoint("bundled@step0", root)
    assert str(path) in str(caught.value)
    assert load_checkpoint("bundled@step64", root).revision == "step64"


def test_weights_are_compared_when_they_are_read(root: Path) -> None:
    """Who asks for them next needs no reading of the files before it."""
    path = root / "step0" / "model.safetensors"
    found = find_checkpoint("bundled@step0", root)
    assert found == load_checkpoint("bundled@step0", root)
    source = found.source
    assert isinstance(source, ReadOnce)
    source.verify()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert source.layer(1).dense.weight.shape == (64, 64)
    late = find_checkpoint("bundled@step0", root)
    words = r"^bundled@step0 will not be served: model\.safetensors has sha256 \w{64}, not \w{64}$"
    with pytest.raises(CheckpointError, match=words):
        pack(late.source, create("reference", late.config, torch.device("cpu")))
    (root / "step0" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is 2 bytes long"):
        find_checkpoint("bundled@step0", root)


def test_a_local_directory_is_mapped(copy: Path) -> None:
    found = find_checkpoint(str(copy))
    assert found == load_checkpoint(str(copy))
    assert not isinstance(found.source, ReadOnce)


def test_a_shorter_and_a_missing_file_are_named(root: Path) -> None:
    path = root / "step0" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model.safetensors is \d+ bytes long, not"):
        load_checkpoint("bundled@step0", root)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing"):
        load_checkpoint("bundled@step0", root)


@pytest.mark.parametrize("text", [None, "", "[]", '{"main": "step0", "steps": {"step0": {}}}'])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=MANIFEST):
        load_checkpoint("bundled", tmp_path)


def test_a_local_directory(original: Path, copy: Path) -> None:
    (copy / "optimizer.pt").write_bytes(b"never read")
    checkpoint = load_checkpoint(str(copy))
    assert (checkpoint.model_id, checkpoint.revision, checkpoint.commit) == ("copy", None, None)
    assert checkpoint.files == {
        name: hashlib.sha256((original / name).read_bytes()).hexdigest()
        for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
    }


def test_hashes_cover_all_shards(tmp_path: Path) -> None:
    from transformers import GPTNeoXForCausalLM

    whole = random_checkpoint(tmp_path / "whole", heads=1)
    model = GPTNeoXForCausalLM.from_pretrained(whole)
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    shutil.copy(whole / "tokenizer.json", tmp_path / "shards")
    files = load_checkpoint(str(tmp_path / "shards")).files
    assert files.keys() == {path.name for path in (tmp_path / "shards").iterdir()}
    assert "model.safetensors.index.json" in files


def test_a_missing_tokenizer_is_named(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer.json"):
        load_checkpoint(str(copy))


def test_a_missing_config_is_named(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        load_checkpoint(str(copy))


def test_a_name_that_does_not_exist_gets_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match="pythia-1b"):
        load_checkpoint("pythia-1c")


@pytest.mark.parametrize("path", ["/no/such/directory", "./no-such-directory", "~/no-such-dir"])
def test_a_path_that_does_not_exist_is_named(path: str) -> None:
    with pytest.raises(CheckpointError, match=f"directory does not exist: {path}"):
        load_checkpoint(path)
