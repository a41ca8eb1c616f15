from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from pythia_bento.settings import (
    Settings,
    SettingsError,
    check_names,
    for_service,
    known,
    load_settings,
    wants_gpu,
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
        ({"modle": "bundled"}, ["modle is not a setting", "max_queue"]),
        ({"max_tokens_per_step": 8}, ["max_tokens_per_step (8)", "max_batch_size (64)"]),
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


def test_gpu_is_wanted_only_where_one_could_be() -> None:
    assert wants_gpu(Settings(device="cuda"))
    assert not wants_gpu(Settings(device="cpu"))
    assert isinstance(wants_gpu(Settings(device="auto")), bool)


@pytest.mark.parametrize(
    ("said", "device", "found"),
    [
        (None, "cuda", True),
        (None, "cpu", False),
        (False, "cuda", False),
        (True, "cpu", True),
    ],
)
def test_a_service_on_a_gpu_gives_the_engine_a_process(
    said: bool | None, device: Literal["cuda", "cpu"], found: bool
) -> None:
    assert for_service(Settings(device=device, engine_process=said)).engine_process is found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_settings_that_exist(document: Path) -> None:
    named = set(re.findall(r"\bPYTHIA_[A-Z_]*[A-Z]", document.read_text()))
    assert named - NAMES <= {"PYTHIA_TORCH"}  # the Makefile's


def test_operators_are_told_of_every_bound_in_time_and_of_the_queue() -> None:
    """The README's table has all settings; tests/e2e/test_readme.py compares it."""
    guide = (ROOT / "docs/operations.md").read_text()
    rows = set(re.findall(r"^\| `(PYTHIA_\w+)` \|", guide, re.MULTILINE))
    times = {name for name in NAMES if re.search("TIMEOUT|SECONDS", name)}
    bounds = {name for name in NAMES if re.search("QUEUE|_KEY_", name)}
    assert rows >= times | bounds
    assert rows <= NAMES
