"""``tokenizer.json`` of the suite's kind is read, everything else refused by its field."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from pythia_bento.catalog import SIZES
from pythia_bento.checkpoints import tokenizer_file
from pythia_bento.checkpoints.bundle import list_bundled
from pythia_bento.checkpoints.tokenizer_file import (
    check_tokenizer,
    tokenizer_meaning,
    try_tokenizer,
)
from pythia_bento.errors import CheckpointError
from tests.tokenizer_parts import raw_tokenizer

CONFIG = SIZES["14m"].config
Raw = dict[str, Any]
# The suite's own, where a checkout has it beside it.
REAL = sorted((Path(__file__).parents[4] / "shared" / "data").glob("*tokenizer.json"))


def write(tmp_path: Path, raw: object) -> Path:
    path = tmp_path / "tokenizer.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
    return path


def plain() -> Raw:
    raw: Raw = json.loads(raw_tokenizer().to_str())
    return raw


def test_tokenizers_of_the_suites_kind(tmp_path: Path) -> None:
    check_tokenizer(list_bundled()[0].directory / "tokenizer.json", CONFIG)
    raw = plain()
    check_tokenizer(write(tmp_path, raw), CONFIG)
    # As they were written before: merges are texts, and there are fewer fields.
    raw["model"]["merges"] = [" ".join(pair) for pair in raw["model"]["merges"]]
    for name in ("byte_fallback", "ignore_merges", "type"):
        del raw["model"][name]
    del raw["pre_tokenizer"]["use_regex"]
    raw["normalizer"] = {"type": "NFC"}
    check_tokenizer(write(tmp_path, raw), CONFIG)
    try_tokenizer(tmp_path / "tokenizer.json")


def other(*path: Any, value: Any) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        *parents, last = path
        inner: Any = raw
        for part in parents:
            inner = inner[part]
        inner[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other("model", "type", value="WordPiece"), "model.type must be 'BPE', not 'WordPiece'"),
        (other("model", "vocab", value=[]), "model.vocab"),
        (other("model", "vocab", "th", value="5"), "model.vocab.th must be a valid integer"),
        (other("model", "vocab", "th", value=10**9), "model.vocab.th"),
        (
            other("model", "vocab", "th", value=900),
            "ids that are not 0 to 267|which is not its own",
        ),
        (other("model", "vocab", "th", value=5), "ids that are not 0 to 267"),
        (other("model", "merges", value=[["t", "zz"]]), "which is not two of its tokens"),
        (other("model", "merges", value=["t"]), "which is not two of its tokens"),
        (other("model", "merges", value=[["t"]]), "model.merges.0"),
        (other("model", "dropout", value=0.5), "model.dropout"),
        (other("model", "continuing_subword_prefix", value="##"), "continuing_subword_prefix"),
        (other("decoder", value=None), "decoder"),
        (other("decoder", "type", value="WordPiece"), "decoder.type"),
        (other("normalizer", value={"type": "Lowercase"}), "normalizer.type"),
        (other("pre_tokenizer", "add_prefix_space", value=True), "pre_tokenizer.add_prefix_space"),
        (other("pre_tokenizer", value={"type": "Whitespace"}), "pre_tokenizer.type"),
        (other("post_processor", value={"type": "TemplateProcessing"}), "post_processor.type"),
        (other("added_tokens", 0, "lstrip", value=True), "added_tokens.0.lstrip"),
        (other("added_tokens", 0, "content", value="<end>"), "which is not its own"),
        (other("added_tokens", value=None), "added_tokens"),
        (other("version", value=1), "version"),
        (other("pre_tokenizer", "add_prefix_space", value=0), "add_prefix_space must be a valid b"),
        # What random files have shown.
        (other("model", "merges", 0, 0, value="<|endoftext|>"), "is not two of its tokens"),
        (other("added_tokens", 4, "id", value=266), "which is not its own"),
        (other("added_tokens", 0, "id", value=5), "which is not its own"),
        (other("e\u2028\nf", value=1), r"the field e\\u2028\\nf is not known here"),
        (other("surprise", value=1), "the field surprise is not known here"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, change: Callable[[Raw], None], words: str) -> None:
    raw = plain()
    change(raw)
    with pytest.raises(CheckpointError, match=words) as caught:
        check_tokenizer(write(tmp_path, raw), CONFIG)
        try_tokenizer(tmp_path / "tokenizer.json")
    assert "\n" not in caught.value.message and len(caught.value.message) < 500


@pytest.mark.parametrize("text", ["", "null", "[[[", "[]", "5", "{}", "[" * 100_000, '"\\ud800"'])
def test_other_files_are_no_tokenizers(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        check_tokenizer(write(tmp_path, text), CONFIG)


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    shape = type(CONFIG)(1, 64, 2, 96, 267, 64, 8)
    with pytest.raises(CheckpointError, match="has 268 tokens, but the model has rows for 267"):
        check_tokenizer(write(tmp_path, plain()), shape)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="it is not a file"):
        check_tokenizer(tmp_path / "tokenizer.json", CONFIG)


def meaning(raw: Raw | str) -> str:
    text = raw if isinstance(raw, str) else json.dumps(raw)
    return tokenizer_meaning(text.encode(), Path("tokenizer.json"))


def _rewritten(raw: Raw) -> None:
    """As another version of the library writes the same."""
    merges = raw["model"]["merges"]
    raw["model"]["merges"] = [m.split() if isinstance(m, str) else " ".join(m) for m in merges]
    raw["model"]["vocab"] = dict(reversed(raw["model"]["vocab"].items()))
    raw["added_tokens"].reverse()
    for name in ("byte_fallback", "ignore_merges", "type"):
        raw["model"].pop(name, None)
    raw["model"]["continuing_subword_prefix"] = ""
    raw["pre_tokenizer"].pop("use_regex", None)
    del raw["version"]
    raw["post_processor"], raw["padding"] = None, {"strategy": {"Fixed": 7}}


@pytest.mark.parametrize(
    "path", [list_bundled()[0].directory / "tokenizer.json", *REAL], ids=lambda path: path.name
)
def test_how_a_tokenizer_is_written_is_not_what_it_means(path: Path) -> None:
    text = path.read_text()
    raw, wanted = json.loads(text), meaning(text)
    assert meaning(json.dumps(raw, indent=3, ensure_ascii=True)) == wanted
    assert meaning(tokenizers.Tokenizer.from_str(text).to_str(pretty=True)) == wanted
    _rewritten(raw)
    assert meaning(raw) == wanted


def _swapped_merges(raw: Raw) -> None:
    merges = raw["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]


def _swapped_ids(raw: Raw) -> None:
    vocab = raw["model"]["vocab"]
    one, two, *_ = vocab
    vocab[one], vocab[two] = vocab[two], vocab[one]


@pytest.mark.parametrize(
    "change",
    [
        _swapped_merges,
        _swapped_ids,
        other("normalizer", value={"type": "NFC"}),
        other("added_tokens", 0, "special", value=False),
        other("added_tokens", 0, "normalized", value=True),
        other("added_tokens", 0, "content", value="<|end|>"),
    ],
)
def test_what_may_encode_otherwise_means_something_else(change: Callable[[Raw], None]) -> None:
    raw = plain()
    assert raw["normalizer"] is None and not raw["added_tokens"][0]["normalized"]
    change(raw)
    assert meaning(raw) != meaning(plain())


def test_another_kind_has_no_meaning() -> None:
    with pytest.raises(CheckpointError, match="decoder"):
        meaning({**plain(), "decoder": None})


def test_equal_bytes_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    inner = tokenizer_file.parse_json

    def noted(data: bytes, what: str) -> Any:
        looked.append(data)
        return inner(data, what)

    monkeypatch.setattr(tokenizer_file, "parse_json", noted)
    monkeypatch.setattr(tokenizer_file, "_passed", set())
    monkeypatch.setattr(tokenizer_file, "_MAX_PASSED", 2)
    paths = [
        write(tmp_path / str(number), {**plain(), "padding": {"n": number}}) for number in range(3)
    ]
    for path in (paths[0], paths[0], paths[1], paths[0], paths[2], paths[0]):
        check_tokenizer(path, CONFIG)
    assert len(looked) == 4  # of the third the first two are forgotten
    small = replace(CONFIG, vocab_size=10)
    for _ in range(2):  # what does not fit is never remembered
        with pytest.raises(CheckpointError, match="has rows for 10"):
            check_tokenizer(paths[0], small)
