from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from pythia_bento.settings import (
    Arguments,
    Settings,
    SettingsError,
    check_names,
    known,
    load_settings,
)

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = {f"PYTHIA_{name.upper()}" for name in Settings.model_fields}


def test_defaults_serve_the_bundled_model() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.model, settings.device, settings.matmul) == ("bundled", "auto", "w8a16")


def test_environment_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_MODEL", "bundled@step64")
    monkeypatch.setenv("PYTHIA_MAX_QUEUE", "7")
    settings = load_settings({"model": "elsewhere", "kv_cache_gb": "0.5"})
    assert (settings.model, settings.max_queue, settings.kv_cache_gb) == ("elsewhere", 7, 0.5)


def test_arguments_are_typed_and_those_of_other_services_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHIA_MAX_QUEUE", "7")
    read = Arguments(model="elsewhere", kv_cache_gb="0.5", greeting="hello")
    assert (read.model, read.max_queue, read.kv_cache_gb) == ("elsewhere", 7, 0.5)
    assert isinstance(pickle.loads(pickle.dumps(read)), Settings)  # for the engine's process
    for arguments, words in (({"device": "tpu"}, "PYTHIA_DEVICE"), ({"api_keys": "a"}, "no arg")):
        with pytest.raises(SettingsError, match=words):
            Arguments(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "tpu"}, ["PYTHIA_DEVICE", "'cpu'", "'tpu'"]),
        ({"max_batch_size": 0}, ["PYTHIA_MAX_BATCH_SIZE", "1", "not 0"]),
        ({"kv_cache_gb": "nan"}, ["PYTHIA_KV_CACHE_GB", "finite"]),
        ({"kv_cache_gb": -1}, ["PYTHIA_KV_CACHE_GB", "greater than 0"]),
        ({"stall_seconds": -1}, ["PYTHIA_STALL_SECONDS", "greater than or equal to 0"]),
        ({"stall_seconds": "inf"}, ["PYTHIA_STALL_SECONDS", "finite"]),
        ({"cors_origins": "example.org"}, ["PYTHIA_CORS_ORIGINS", "https://example.org:8443"]),
        ({"cors_origins": "https://a.org,*"}, ["PYTHIA_CORS_ORIGINS", "must be * or origins"]),
        ({"cors_origins": "https://a.org/"}, ["PYTHIA_CORS_ORIGINS", "must be * or origins"]),
        ({"metrics_prefix": "vl-lm"}, ["PYTHIA_METRICS_PREFIX", "must match", "'vl-lm'"]),
        ({"metrics_prefix": "v" * 65}, ["PYTHIA_METRICS_PREFIX", "must have at most 64"]),
        ({"metrics_prefix": "pythia_"}, ["metrics_prefix must not begin with pythia_"]),
        ({"devices": "gpu:2"}, ["PYTHIA_DEVICES", "must match", "'gpu:2'"]),
        ({"modle": "bundled"}, ["modle is not a setting", "max_queue"]),
        (
            {"max_tokens_per_step": 8, "max_batch_size": 64},
            ["max_tokens_per_step (8)", "max_batch_size (64)"],
        ),
    ],
)
def test_one_sentence_names_the_setting(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(arguments)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert "\n" not in caught.value.message


def test_a_bentos_arguments_are_for_all_of_its_services() -> None:
    arguments = {"greeting": "hello", "model": "elsewhere"}
    assert known(arguments) == {"model": "elsewhere"}
    with pytest.raises(SettingsError, match="greeting is not a setting; known are model, "):
        check_names(arguments)
    check_names(known(arguments))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_settings_that_exist(document: Path) -> None:
    named = set(re.findall(r"\bPYTHIA_[A-Z_]*[A-Z]", document.read_text()))
    assert named - NAMES <= {"PYTHIA_TORCH"}  # the Makefile's


def table(document: str) -> dict[str, list[str]]:
    """Rows of the settings of a page: what stands behind the name."""
    text = (ROOT / document).read_text()
    rows = re.findall(r"^\| `PYTHIA_([A-Z_]+)` \|(.*)\|$", text, re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    return {name.lower(): [cell.strip() for cell in row.split(" |")] for name, row in rows}


def test_the_page_of_settings_has_all_with_defaults_and_ranges() -> None:
    rows = table("docs/settings.md")
    assert rows.keys() == Settings.model_fields.keys()
    for name, (default, allowed, meaning) in rows.items():
        assert (default, allowed) == (written_default(name), written_range(name)), name
        assert meaning


def test_the_readme_has_some_of_them() -> None:
    rows = table("README.md")
    assert len(rows) == 5
    assert all(row[0] == written_default(name) for name, row in rows.items())


def written_default(name: str) -> str:
    """As the environment has it."""
    default = Settings.model_fields[name].default
    if default in (None, ""):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def written_range(name: str) -> str:
    """What the field's type and bounds say; nothing where a text may be anything."""
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    if bool in (field.annotation, *get_args(field.annotation)):
        return "`true`, `false`"
    bounds = {
        bound: getattr(part, bound)
        for part in field.metadata
        for bound in ("ge", "gt", "le")
        if hasattr(part, bound)
    }
    low = f"above {written(bounds['gt'])}" if "gt" in bounds else written(bounds.get("ge"))
    high = f" to {written(bounds['le'])}" if "le" in bounds else ""
    return low + (high or (" or more" if "ge" in bounds else ""))


def written(bound: float | None) -> str:
    if bound is None:
        return ""
    return {-(2**63): "-2^63", 2**64 - 1: "2^64 - 1"}.get(int(bound)) or f"{bound:g}"


def test_operators_are_told_of_every_bound_in_time_and_of_the_queue() -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    rows = set(re.findall(r"^\| `(PYTHIA_\w+)` \|", guide, re.MULTILINE))
    times = {name for name in NAMES if re.search("TIMEOUT|SECONDS", name)}
    bounds = {name for name in NAMES if re.search("QUEUE|_KEY_", name)}
    assert rows >= times | bounds
    assert rows <= NAMES
