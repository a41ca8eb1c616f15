"""The runner over the bundled checkpoint and real kernels."""

from __future__ import annotations

import asyncio

import pytest
import torch

from pythia_bento.engine.outputs import raise_error
from pythia_bento.errors import CheckpointError, ModelNotFound
from pythia_bento.runtime import preflight
from pythia_bento.runtime.preflight import check_loadable
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings, SettingsError
from tests.unit.runtime.toy_runner import ask, settled

SMALL = {"model": "bundled@step64", "device": "cpu", "max_batch_size": 4}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_load_answers_and_closes() -> None:
    reports: list[tuple[str, int, int]] = []
    settings = Settings(**SMALL)
    with PythiaRunner.load(settings, lambda *report: reports.append(report)) as runner:
        assert [done for _, done, _ in reports] == sorted({done for _, done, _ in reports})
        assert reports[-1][1] == reports[-1][2]
        assert runner.is_ready
        assert runner.info.id == "bundled@step64"
        assert runner.info.fingerprint.endswith("-cpu-w8a16")
        [[answer]] = runner.complete_sync([ask((5, 6), max_tokens=8)])
        assert len(raise_error(answer).token_ids) == 8
        # A full batch of full contexts, for memory is plenty.
        assert runner.stats().blocks_total * 16 == 4 * runner.limits.max_positions
        settled(runner)
    assert not runner.is_ready


def test_names_of_main() -> None:
    with PythiaRunner.load(Settings(device="cpu", max_batch_size=2)) as runner:
        for name in ("bundled", "bundled@main", runner.info.id, runner.info.aliases[0]):
            assert asyncio.run(runner.served(name)) is runner
        with pytest.raises(ModelNotFound):
            asyncio.run(runner.served("bundled@step65"))


@pytest.mark.parametrize("matmul", ["w8a16", "llm-int8"])
def test_reference_backend(matmul: str) -> None:
    settings = Settings(**SMALL, matmul=matmul, backend="reference", kv_cache_gb=0.001)
    with PythiaRunner.load(settings) as runner:
        assert runner.info.fingerprint.endswith(f"-reference-{matmul}")
        assert runner.stats().blocks_total < 100
        [[answer]] = runner.complete_sync([ask((5, 6), max_tokens=3)])
        assert len(raise_error(answer).token_ids) == 3


def test_llm_int8_takes_the_backend_that_has_it() -> None:
    with PythiaRunner.load(Settings(**SMALL, matmul="llm-int8")) as runner:
        assert "-reference-llm-int8" in runner.info.fingerprint


def test_without_a_compiler_the_start_ends_and_names_the_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pythia_bento.model.kernels.cpu import kernels

    def fail(isa: str) -> None:
        raise RuntimeError("the CPU kernels need a C++ compiler once")

    monkeypatch.setattr(kernels, "load", fail)
    need = "but the CPU kernels need a C\\+\\+ compiler once"
    with pytest.raises(SettingsError, match=f"is auto, {need}; PYTHIA_BACKEND=reference works"):
        PythiaRunner.load(Settings(**SMALL))
    with pytest.raises(SettingsError, match=f"is cpu, {need}$"):
        PythiaRunner.load(Settings(**SMALL, backend="cpu"))
    monkeypatch.setattr(preflight.build, "library", fail)
    with pytest.raises(SettingsError, match=f"is auto, {need}; PYTHIA_BACKEND=reference works"):
        check_loadable(Settings(**SMALL))
    check_loadable(Settings(**SMALL, backend="reference"))
    with PythiaRunner.load(Settings(**SMALL, backend="reference")) as runner:
        assert runner.info.provenance is not None
        assert not runner.info.provenance.batch_invariant


def test_what_cannot_be_loaded() -> None:
    with pytest.raises(CheckpointError, match="/nowhere"):
        check_loadable(Settings(model="/nowhere"))
    with pytest.raises(ModelNotFound, match="nearest steps"):
        check_loadable(Settings(model="bundled@step65"))
    with pytest.raises(SettingsError, match="computes w8a16"):
        PythiaRunner.load(Settings(**SMALL, backend="cpu", matmul="llm-int8"))


def test_llm_int8_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(**SMALL, matmul="llm-int8")
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    for load in (check_loadable, PythiaRunner.load):
        with pytest.raises(SettingsError, match=r"PYTHIA_MATMUL.*pythia-bento\[llm-int8\]"):
            load(settings)


def test_cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"PYTHIA_DEVICE.*no GPU"):
        check_loadable(Settings(device="cuda"))
