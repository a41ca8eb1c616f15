from __future__ import annotations

import pytest

from pythia_bento import settings as module
from pythia_bento.settings import (
    OWN_PROCESS_PROCESSORS,
    Settings,
    SettingsError,
    load_settings,
    wants_engine_process,
    wants_gpu,
)


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
        ({"modle": "bundled"}, ["modle is not a setting", "max_queue"]),
        ({"max_tokens_per_step": 8}, ["max_tokens_per_step (8)", "max_batch_size (64)"]),
    ],
)
def test_one_sentence_names_the_setting(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(arguments)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert "\n" not in caught.value.message


def test_gpu_is_wanted_only_where_one_could_be() -> None:
    assert wants_gpu(Settings(device="cuda"))
    assert not wants_gpu(Settings(device="cpu"))
    assert isinstance(wants_gpu(Settings(device="auto")), bool)


@pytest.mark.parametrize(
    ("device", "asked", "processors", "expected"),
    [
        ("cuda", None, OWN_PROCESS_PROCESSORS, True),
        ("cuda", None, OWN_PROCESS_PROCESSORS - 1, False),
        ("cpu", None, 64, False),  # there the kernels are what takes the time
        ("cuda", False, 64, False),
        ("cpu", True, 1, True),
    ],
)
def test_when_the_engine_has_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    asked: bool | None,
    processors: int,
    expected: bool,
) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: processors)
    settings = load_settings(
        {"device": device} | ({} if asked is None else {"engine_process": asked})
    )
    assert wants_engine_process(settings) is expected
