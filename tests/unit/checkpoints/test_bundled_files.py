"""The committed files of the bundled checkpoint: whole, small, trained, readable, repeatable."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from pythia_bento.checkpoints.config_file import read_config
from tests.amounts import rest_long
from tests.later import transformers
from tests.tools import tool

ROOT = Path(__file__).resolve().parents[3]
BUNDLED = ROOT / "pythia_bento" / "checkpoints" / "bundled"
MANIFEST: dict[str, Any] = json.loads((BUNDLED / "manifest.json").read_text())
STEPS: dict[str, Any] = MANIFEST["steps"]
MAIN: str = MANIFEST["main"]


def model_of(step: str) -> transformers.GPTNeoXForCausalLM:
    torch.set_num_threads(1)
    return transformers.GPTNeoXForCausalLM.from_pretrained(
        BUNDLED / step, dtype=torch.float32
    ).eval()


def greedy(step: str, prompt: str, count: int) -> str:
    """``count`` greedy tokens after ``prompt``, by transformers; end of text does not stop it."""
    tokenizer = Tokenizer.from_file(str(BUNDLED / step / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    model = model_of(step)
    with torch.inference_mode():
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count,
            min_new_tokens=count, pad_token_id=1,
        )  # fmt: skip
    return tokenizer.decode(output[0, ids.shape[1] :].tolist())


@functools.cache
def known_words() -> frozenset[str]:
    return frozenset(tool("make_corpus").word_list())


def share_of_known_words(step: str, prompt: str) -> float:
    """Of the words generated, the share that the corpus has. No words at all count as none."""
    known = known_words()
    found = tool("make_corpus").words(greedy(step, prompt, 120))
    return sum(word in known for word in found) / max(1, len(found))


@pytest.mark.parametrize("step", STEPS)
def test_manifest_names_every_file_by_its_hash(step: str) -> None:
    files = STEPS[step]["files"]
    assert set(files) == {path.name for path in (BUNDLED / step).iterdir()}
    lines = []
    for name, recorded in files.items():
        data = (BUNDLED / step / name).read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        assert recorded == {"sha256": sha256, "size": len(data)}, name
        lines.append(f"{sha256}  {name}\n")
    assert STEPS[step]["commit"] == hashlib.sha1("".join(sorted(lines)).encode()).hexdigest()


def test_at_least_six_steps_are_kept_and_the_last_is_main() -> None:
    assert len(STEPS) >= 6
    assert list(STEPS) == [f"step{entry['step']}" for entry in STEPS.values()]
    assert max(STEPS, key=lambda name: STEPS[name]["step"]) == MAIN
    assert {path.name for path in BUNDLED.iterdir() if path.is_dir()} == set(STEPS)


def test_no_two_steps_share_their_weights() -> None:
    hashes = {entry["files"]["model.safetensors"]["sha256"] for entry in STEPS.values()}
    assert len(hashes) == len(STEPS)


def test_everything_is_at_most_twelve_megabytes() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 12_000_000


def test_held_out_loss_falls_from_step_to_step() -> None:
    losses = [entry["held_out_loss"] for entry in STEPS.values()]
    assert losses[0] > 6.5  # an untrained model is near ln(1024) = 6.93
    assert all(after < before for before, after in itertools.pairwise(losses))


@pytest.mark.parametrize("step", rest_long([MAIN], ["step64"]))
def test_recorded_loss_is_what_the_stored_weights_give(step: str) -> None:
    trainer = tool("train_bundled")
    tokenizer = Tokenizer.from_file(str(BUNDLED / step / "tokenizer.json"))
    held_out = trainer.held_out_tokens(MANIFEST["seed"], tokenizer)
    model = model_of(step)
    assert trainer.held_out_loss(model, held_out) == pytest.approx(
        STEPS[step]["held_out_loss"], abs=1e-3
    )


def test_training_log_has_every_step() -> None:
    records = [json.loads(line) for line in (BUNDLED / "training.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, STEPS[MAIN]["step"] + 1))


@pytest.mark.parametrize("prompt", ["Once upon a time", "Question: What color is", "The"])
def test_text_at_main_is_made_of_the_words_of_the_corpus(prompt: str) -> None:
    assert share_of_known_words(MAIN, prompt) >= 0.9


def test_text_at_step0_is_not() -> None:
    assert share_of_known_words("step0", "Once upon a time") < 0.5


def test_main_knows_the_facts_of_the_corpus() -> None:
    assert greedy(MAIN, "The opposite of hot is", 4).startswith(" cold.")
    assert greedy(MAIN, "Let us count. four, five,", 6).startswith(" six, seven")


@pytest.mark.parametrize("step", STEPS)
def test_shape_is_a_pythia_with_ids_that_have_no_token(step: str) -> None:
    config = read_config(BUNDLED / step / "config.json")
    tokenizer = Tokenizer.from_file(str(BUNDLED / step / "tokenizer.json"))
    assert config.vocab_size > tokenizer.get_vocab_size()
    assert config.vocab_size % 64 == 0
    assert config.rotary_dims * 4 == config.head_dim
    assert tokenizer.token_to_id("<|endoftext|>") == 0
    assert tokenizer.token_to_id("<|padding|>") == 1


def test_transformers_reads_the_same_tokenizer() -> None:
    ours = Tokenizer.from_file(str(BUNDLED / MAIN / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(BUNDLED / MAIN)
    for text in ("Once upon a time", " two  spaces\n", "caf\u00e9 \u65e5\u672c", "a<|endoftext|>b"):
        assert theirs(text)["input_ids"] == ours.encode(text).ids
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.long
def test_corpus_is_the_recorded_one() -> None:
    corpus = tool("make_corpus")
    megabytes = MANIFEST["command"].split("--megabytes ")[1].split()[0]
    text = corpus.joined(MANIFEST["seed"], "train", float(megabytes))
    assert hashlib.sha256(text.encode()).hexdigest() == MANIFEST["corpus_sha256"]


def contents(directory: Path) -> dict[str, bytes]:
    """Every file under ``directory`` by its relative path."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """The trainer sets these for its own process; put them back for the other tests."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.long
@pytest.mark.usefixtures("torch_settings")
def test_two_runs_of_the_trainer_write_the_same_bytes(tmp_path: Path) -> None:
    """In two processes whose sets iterate in different orders."""
    here, there = tmp_path / "here", tmp_path / "there"
    small = ["--steps=2", "--keep", "0", "--megabytes=0.2", "--batch-tokens=512", "--output"]
    script = [sys.executable, str(ROOT / "tools" / "train_bundled.py"), *small, str(there)]
    other = subprocess.Popen(script, stdout=subprocess.DEVNULL)
    try:
        tool("train_bundled").main([*small, str(here)])
    finally:
        assert other.wait() == 0
    assert contents(here) == contents(there)
    assert {path.name for path in here.iterdir() if path.is_dir()} == {"step0", "step2"}
