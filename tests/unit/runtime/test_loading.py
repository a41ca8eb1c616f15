"""What is said of a model that does not fit."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pythia_bento.catalog import SIZES
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import entry_of
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.model.kernels.base import pass_bytes
from pythia_bento.runtime import loading
from pythia_bento.runtime.model_info import ModelInfo, Provenance
from pythia_bento.settings import Settings, SettingsError


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_model_that_does_not_fit_is_an_error_with_figures(monkeypatch, error):
    create = loading.kernels.create

    def cramped(*args):
        backend = create(*args)

        def load_layer(layer):
            raise error

        backend.load_layer = load_layer
        return backend

    monkeypatch.setattr(loading.kernels, "create", cramped)
    with pytest.raises(SettingsError, match=r"bundled.* does not fit .* take 0\.\d GB, and .* GB"):
        loading.load_engine(Settings(model="bundled"), lambda what, done, total: None)


def test_other_failures_are_not_called_too_large(monkeypatch):
    def broken(*args):
        raise RuntimeError("a kernel is wrong")

    monkeypatch.setattr(loading, "_build", broken)
    with pytest.raises(RuntimeError, match="a kernel is wrong"):
        loading.load_engine(Settings(model="bundled"), lambda what, done, total: None)


def test_a_larger_pass_takes_more_memory():
    config = SIZES["12b"].config
    assert pass_bytes(config, 64, 512) < pass_bytes(config, 64, 2048) < 1.5e9
    assert pass_bytes(config, 64, 512) < pass_bytes(config, 256, 512)


def test_tokens_in_a_step_suit_the_device_unless_somebody_says_otherwise() -> None:
    found = [loading.tokens_per_step(Settings(), device) for device in ("cuda", "cpu")]
    assert found == [2048, 512]
    assert loading.tokens_per_step(Settings(max_batch_size=1000), "cpu") == 1000
    assert loading.tokens_per_step(Settings(max_tokens_per_step=256), "cuda") == 256


@pytest.mark.parametrize("free, most", [(141, 8192), (15, 4096), (1, 2048)])
def test_steps_that_nobody_waits_for_are_larger_where_memory_is_plenty(
    monkeypatch: pytest.MonkeyPatch, free: float, most: int
) -> None:
    monkeypatch.setattr(loading, "free_bytes", lambda device: free * 10**9)
    backend: Any = SimpleNamespace(config=SIZES["1b"].config, device=torch.device("cuda"))
    said = Settings(max_tokens_per_prompt_step=700)
    assert loading.tokens_per_prompt_step(Settings(), backend, 2048) == most
    assert loading.tokens_per_prompt_step(said, backend, 2048) == 700
    backend.device = torch.device("cpu")
    assert loading.tokens_per_prompt_step(Settings(), backend, 512) == 512


def test_an_engines_cache_is_rooted_in_weights_and_arithmetic() -> None:
    """Whatever the id: main is one of the steps."""
    info = ModelInfo("", provenance=Provenance(None, {}, "", "", "int8", "w8a16", "cpu", True, "1"))
    main, step, other = (
        info.of(entry_of(load_checkpoint(f"bundled@{at}")))
        for at in ("main", "step3000", "step512")
    )
    assert main.root == step.root
    assert step.provenance is not None
    triton, llm_int8 = (
        replace(step.provenance, backend="triton"),
        replace(step.provenance, matmul="llm-int8"),
    )
    assert len({step.root, other.root, triton.root, llm_int8.root}) == 4
    settings = Settings(model="bundled@step512", models="", device="cpu", kv_cache_gb=0.001)
    engine, _ = loading.load_engine(settings, lambda *_: None)
    assert isinstance(engine, Engine) and engine.root == other.root
    engine.close()


def test_sequences_in_a_step_follow_the_device_and_the_tokens_in_a_step() -> None:
    assert [Settings().batch_size(device) for device in ("cuda", "cpu", "auto")] == [256, 64, 64]
    assert Settings(max_batch_size=7).batch_size("cuda") == 7
    assert Settings(max_tokens_per_step=32).batch_size("cuda") == 32


@pytest.mark.parametrize(
    ("device", "is_invariant", "why"),
    [
        ("cpu", True, ""),
        ("cuda", True, "PYTHIA_SPECULATE=ngram is off here: steps of a GPU do not wait"),
        ("cpu", False, "PYTHIA_SPECULATE=ngram is off here: answers of this backend depend"),
    ],
)
def test_drafts_are_made_where_they_change_no_answer(
    caplog: pytest.LogCaptureFixture, device: str, is_invariant: bool, why: str
) -> None:
    backend: Any = SimpleNamespace(device=torch.device(device), batch_invariant=is_invariant)
    assert not loading.speculates(Settings(), backend)
    assert caplog.text == ""
    assert loading.speculates(Settings(speculate="ngram"), backend) == (not why)
    assert why in caplog.text


def test_the_setting_reaches_the_engine() -> None:
    for value in ("off", "ngram"):
        settings = Settings(models="", speculate=value, device="cpu", kv_cache_gb=0.05)
        engine, _ = loading.load_engine(settings, lambda what, done, total: None)
        assert isinstance(engine, Engine)
        params = SamplingParams(max_tokens=30, temperature=0.0, logit_bias=((50, 100.0),))
        asked = Request("r", (50, 50, 50), params)
        engine.generate([asked])
        assert (engine.stats().draft_tokens > 0) == (value == "ngram")
        engine.close()
