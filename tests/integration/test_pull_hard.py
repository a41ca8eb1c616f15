"""Pulls that are killed, that race each other, and that run out of disk."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from pythia_bento.catalog import parse
from pythia_bento.checkpoints import store
from pythia_bento.checkpoints.files import sha256
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.resolve import locate, verify
from tests.amounts import amounts
from tests.hub import HubServer
from tests.hub.child import Puller

REPO = "EleutherAI/pythia-14m"
MODEL = parse("pythia-14m@step3000")

MANY = 20  # kills


@pytest.fixture
def puller(hub: HubServer, bento_home: Path, sources: Path, tmp_path: Path) -> Puller:
    hub.folder.commit(REPO, "main", sources / "b")
    hub.folder.commit(REPO, "step3000", sources / "a")
    return Puller(hub.endpoint, tmp_path / "hf", bento_home, MODEL)


@amounts(2, MANY)
def test_killed_pulls_leave_all_or_nothing(
    hub: HubServer, puller: Puller, bento_home: Path, amount: int
) -> None:
    pull(MODEL)
    expected = {p.name: sha256(p) for p in locate(MODEL, Lock()).path.glob("*.safetensors")}
    puller.start().join()  # imports take longer than all that follows
    hub.fail("/cdn/", delay=0.1, times=10**6)
    enough, killed, complete = None, 0, True  # enough: seconds in which a pull comes to its end
    generator = random.Random(0)
    while killed < amount or (killed < MANY and not went_on(hub)):
        if complete:  # or there would be nothing to do
            shutil.rmtree(bento_home / "models" / "pythia-14m-int8")
        process, started = puller.start(), time.monotonic()
        process.join(enough and generator.uniform(0, enough))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
        else:  # it was quicker than the moment chosen, as is the first one, which has none
            took = time.monotonic() - started
            enough = min(enough or took, took)
        complete = bool(store.stored_models())
        assert verify(Lock(), ask_hub=False) == []
    pull(MODEL)
    found = locate(MODEL, Lock()).path
    assert {p.name: sha256(p) for p in found.glob("*.safetensors")} == expected
    assert went_on(hub)


def went_on(hub: HubServer) -> bool:
    """Whether a pull went on where another ended."""
    return any(seen.range for seen in hub.requests("/cdn/"))


def test_pulls_at_the_same_time_download_once(hub: HubServer, puller: Puller) -> None:
    hub.fail("/cdn/", delay=0.02, times=10**6)
    processes = [puller.start() for _ in range(4)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(hub.requests("/cdn/")) == 1
    assert verify(Lock(), ask_hub=False) == []
    assert locate(MODEL, Lock())


OWN_DISK = pytest.mark.needs("namespaces")


@pytest.mark.parametrize(
    "kind",
    [pytest.param("downloads", marks=OWN_DISK), pytest.param("store", marks=OWN_DISK), "limit"],
)
def test_full_disk_is_said_and_leaves_nothing(puller: Puller, kind: str) -> None:
    first, second = puller.on_full_disk(kind)
    assert "the disk is full" in first
    assert "[0 models in store]" in first
    assert second == "pulled"
