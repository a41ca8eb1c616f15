from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from pythia_bento import hardware
from pythia_bento.runtime.devices import (
    MOST,
    VISIBLE,
    Device,
    check_devices,
    concurrency,
    devices_of,
    for_service,
    resources,
    wants_gpu,
)
from pythia_bento.settings import Settings, SettingsError


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int, visible: str = "") -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv(VISIBLE, visible)


def names(**settings: Any) -> list[str]:
    return [device.name for device in devices_of(Settings(**settings))]


def test_which_devices_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(devices="cpu:3") == ["cpu:0", "cpu:1", "cpu:2"]
    with_gpus(monkeypatch, 4)
    assert names(devices="auto") == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert names(devices="auto", device="cpu") == ["cpu:0"]
    assert names(devices="2,0") == ["cuda:2", "cuda:0"]
    assert [device.visible for device in devices_of(Settings(devices="2,0"))] == ["2", "0"]
    with_gpus(monkeypatch, 0)
    assert names(devices="auto") == ["cpu:0"]


def test_gpus_are_counted_among_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 2, "5, GPU-77")
    assert [device.visible for device in devices_of(Settings(devices="1,0"))] == ["GPU-77", "5"]
    with pytest.raises(SettingsError, match=r"PYTHIA_DEVICES\) is 0,2, but CUDA sees 2"):
        devices_of(Settings(devices="0,2"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": "cpu:0"}, f"1 to {MOST} engines"),
        ({"devices": "cpu:65"}, f"1 to {MOST} engines"),
        ({"devices": "1,0,1"}, "names a GPU twice"),
        ({"devices": "0,1", "device": "cpu"}, "PYTHIA_DEVICE=cpu contradicts"),
        ({"devices": "cpu:2", "device": "cuda"}, "PYTHIA_DEVICE=cuda contradicts"),
        ({"devices": "auto", "engine_process": False}, "PYTHIA_ENGINE_PROCESS=false contradicts"),
    ],
)
def test_what_cannot_be_meant(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        check_devices(Settings(**settings))
    assert "PYTHIA_DEVICES" in caught.value.message


def test_cores_and_memory_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_quota", lambda: 5)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: range(16))
    memory = hardware.free_memory()
    shares = []
    for number in range(3):
        monkeypatch.setattr(hardware, "_sharers", 1)
        monkeypatch.setattr(hardware, "_number", 0)
        hardware.share(number, 3)
        shares.append(hardware.usable_cores())
    assert shares == [2, 2, 1]
    assert hardware.free_memory() < memory / 2
    hardware.share(7, 8)
    assert hardware.usable_cores() == 1
    hardware.share(0, 1)
    assert hardware.usable_cores() == 5


def test_what_is_of_the_host_is_shared_out_too() -> None:
    settings = Settings(devices="0,1", host_models_gb=3.0, models_gb=4.0)
    found = Device("cuda", 1, 1, 2, "1").settings(settings)
    assert (found.device, found.devices) == ("cuda", None)
    assert (found.host_models_gb, found.models_gb) == (1.5, 4.0)


def test_what_bentoml_is_told() -> None:
    assert resources(Settings()) == resources(Settings(devices="cpu:2")) == {}
    assert resources(Settings(device="cuda")) == {"gpu": 1}
    assert resources(Settings(devices="0,1")) == {"gpu": 2}
    assert resources(Settings(devices="3")) == {"gpu": 4}  # it shows the first four
    assert resources(Settings(devices="auto", device="cuda")) == {}  # and here all there are
    assert concurrency(Settings(devices="0,1")) == 2 * concurrency(Settings(device="cuda")) == 512
    assert concurrency(Settings(devices="cpu:3", max_batch_size=8)) == 24


def test_gpu_is_wanted_only_where_one_could_be() -> None:
    assert wants_gpu(Settings(device="cuda"))
    assert wants_gpu(Settings(devices="0"))
    assert not wants_gpu(Settings(device="cpu"))
    assert not wants_gpu(Settings(devices="cpu:2"))
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
    check_devices(for_service(Settings(devices="cpu:2")))
