"""Random config.json, tokenizer.json, pythia.lock and model.yaml, right and wrong.

Each case says "read" or "refused" and raises whatever is a fault.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pythia_bento.catalog import SIZES, is_repository, parse
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.stored_model import Origin
from pythia_bento.checkpoints.strict import check
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer, try_tokenizer
from pythia_bento.checkpoints.yaml_file import read_yaml
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import CheckpointError, PythiaError
from tests.config_files import draw_config
from tests.fuzz.structures import as_json, damaged, mutated
from tests.tokenizer_parts import raw_tokenizer

CONFIG = SIZES["14m"].config
TOKENIZER: dict[str, Any] = json.loads(raw_tokenizer().to_str())
TEXT = "the  thing é \ufb01 in a    ball\n\0 €"
COMMIT = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"
FILES = {
    "config.json": {"sha256": "0" * 63 + "1", "size": 5},
    "model.safetensors": {"sha256": "a" * 64},
}
PIN = {"commit": COMMIT, "files": FILES, "quantization": "int8"}
LOCK: dict[str, Any] = {
    "version": 1,
    "models": {
        "pythia-14m": {"repository": "EleutherAI/pythia-14m", "revision": "main", **PIN},
        "Someone/x@v1": {"repository": "Someone/x", "revision": "v1", **PIN, "int8": FILES},
    },
}
MODEL_YAML: dict[str, Any] = {
    "name": "pythia-14m-int8",
    "version": COMMIT,
    "labels": {"size": "14m"},
    "metadata": {
        "repository": "EleutherAI/pythia-14m",
        "revision": "main",
        "commit": COMMIT,
        "quantization": "int8 by row",
        "source_files": FILES,
        "files": FILES,
        "versions": {"torch": "2"},
        "same_weights": ["step1"],
    },
}
# Nothing shared: YAML would write an alias.
LOCK, MODEL_YAML = json.loads(json.dumps([LOCK, MODEL_YAML]))


def refused(call: Callable[[], Any]) -> bool:
    """Whether it ends with the project's own error, which is one sentence; others are raised."""
    try:
        call()
    except PythiaError as error:
        assert isinstance(error, CheckpointError), error
        one_sentence(error)
        return True
    return False


def one_sentence(error: PythiaError) -> None:
    text = error.message
    assert len(text.splitlines()) == 1 and 0 < len(text) < 800, text[:2000]


def config(draw: random.Random, folder: Path) -> str:
    """Fields of all forms and values, and structures that are no config at all."""
    raw = draw_config(draw, draw.randint(0, 4))
    if draw.random() < 0.3:
        raw = mutated(draw, raw, draw.randint(1, 3))
    path = folder / "config.json"
    path.write_bytes(as_json(draw, raw))
    if refused(lambda: read_config(path)):
        return "refused"
    found = read_config(path)
    assert found.rotary_dims % 2 == 0 <= found.rotary_dims <= found.head_dim
    assert found.head_dim * found.num_heads == found.hidden_size
    assert 0 < found.num_layers <= 256 and 0 < found.max_positions <= 65_536
    assert 0 < found.vocab_size <= 1_000_000 and 0 < found.intermediate_size <= 131_072
    return "read"


def tokenizer(draw: random.Random, folder: Path) -> str:
    """Whatever ``pull`` would store serves: it loads, and gives a text back as its NFC or as is."""
    path = folder / "tokenizer.json"
    path.write_bytes(as_json(draw, mutated(draw, TOKENIZER, draw.randint(0, 2))))
    if refused(lambda: check_tokenizer(path, CONFIG)) or refused(lambda: try_tokenizer(path)):
        return "refused"
    found = Tokenizer.from_file(path)
    assert found.num_tokens <= CONFIG.vocab_size and 0 <= found.eos_id < found.num_tokens
    ids = found.encode(TEXT)
    assert all(0 <= id < found.num_tokens for id in ids)
    # A vocabulary may lack bytes; then their text is lost, in transformers too.
    whole = {*map(str, TOKENIZER["model"]["vocab"])} <= {*found._inner.get_vocab()}
    if whole:
        assert found.decode(ids) in (TEXT, unicodedata.normalize("NFC", TEXT)), found.decode(ids)
    return "read"


def lock(draw: random.Random, folder: Path) -> str:
    """A lock is read whole or not at all, and what is read names no path."""
    path = folder / "pythia.lock"
    path.write_bytes(as_yaml(draw, mutated(draw, LOCK, draw.randint(0, 2))))
    if refused(lambda: Lock.read(path)):
        return "refused"
    for id, pin in Lock.read(path).models.items():
        assert str(parse(id)) == id and parse(id).repository == pin.repository
        assert all(Path(name).name == name for name in {**pin.files, **pin.int8})
    return "read"


def origin(draw: random.Random, folder: Path) -> str:
    """What the store says of a model."""
    path = folder / "model.yaml"
    path.write_bytes(as_yaml(draw, mutated(draw, MODEL_YAML, draw.randint(0, 2))))

    def read() -> Origin:
        raw = read_yaml(path)
        metadata = raw.get("metadata") if isinstance(raw, dict) else None
        return check(Origin, metadata, "metadata")

    if refused(read):
        return "refused"
    found = read()
    assert all(Path(name).name == name for name in {**found.files, **found.source_files})
    assert is_repository(found.repository)
    return "read"


def as_yaml(draw: random.Random, value: Any) -> bytes:
    """In one of YAML's spellings, now and then with tags, aliases or damage."""
    text = yaml.safe_dump(value, default_flow_style=draw.choice([None, True, False]))
    if draw.random() < 0.1:
        at = draw.randint(0, len(text))
        odd = ["&a ", "*a", "!!python/name:os.system ", "!!int ", "!!set ", "? ", "- " * 600, "\t"]
        odd += ["[" * 900, "{" * 400, "2026-99-99", "!!binary x", "0b", "1:99", "<<: ", "%YAML 9\n"]
        text = text[:at] + draw.choice(odd) + text[at:]
    return damaged(draw, text.encode("utf-8", "surrogatepass"))
