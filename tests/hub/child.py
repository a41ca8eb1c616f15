"""Pulls in processes of their own, which may be killed or run out of disk."""

from __future__ import annotations

import ctypes
import os
import resource
from multiprocessing.context import ForkServerProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import bentoml.models  # noqa: F401 - BentoML would import it, slowly, in every child

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints import save, store  # noqa: F401 - a pull would import torch, slowly
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.plan import make_plan
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.pull_steps import Outcome, pull_steps
from pythia_bento.checkpoints.resolve import verify
from pythia_bento.errors import CheckpointError
from tests.forkserver import CONTEXT
from tests.hub.places import bentoml_places, client_places

_CLONE_NEWNS, _CLONE_NEWUSER, _MS_REMOUNT = 0x20000, 0x10000000, 0x20
_libc = ctypes.CDLL(None, use_errno=True)


class Puller:
    """Starts pulls of one model from one hub into one store."""

    def __init__(self, endpoint: str, home: Path, bento_home: Path, model: ModelId) -> None:
        self.places = (endpoint, home, bento_home)
        self.model = model

    def start(self) -> ForkServerProcess:
        process = CONTEXT.Process(target=_pull, args=(*self.places, self.model))
        process.start()
        return process

    def start_steps(self, steps: str) -> ForkServerProcess:
        process = CONTEXT.Process(target=_pull_steps, args=(*self.places, self.model, steps))
        process.start()
        return process

    def steps_on_full_disk(self, steps: str) -> list[list[str]]:
        """What became of each step while files had a limit, and once they had none."""
        answers: SimpleQueue[list[list[str]]] = CONTEXT.SimpleQueue()
        process = CONTEXT.Process(
            target=_pull_steps_twice, args=(*self.places, self.model, steps, answers)
        )
        process.start()
        process.join()
        assert process.exitcode == 0
        return answers.get()

    def on_full_disk(self, kind: str) -> list[str]:
        """What two pulls said: one on a small disk, one after it was made larger."""
        answers: SimpleQueue[list[str]] = CONTEXT.SimpleQueue()
        process = CONTEXT.Process(
            target=_pull_twice, args=(*self.places, self.model, kind, answers)
        )
        process.start()
        process.join()
        assert process.exitcode == 0
        return answers.get()


def _settle(endpoint: str, home: Path, bento_home: Path) -> None:
    for holder, name, value in client_places(endpoint, home):
        setattr(holder, name, value)
    for provider, place in bentoml_places(bento_home).items():
        provider.set(place)


def _pull(endpoint: str, home: Path, bento_home: Path, model: ModelId) -> None:
    _settle(endpoint, home, bento_home)
    pull(model)


def _pull_steps(endpoint: str, home: Path, bento_home: Path, model: ModelId, steps: str) -> None:
    _settle(endpoint, home, bento_home)
    all_steps(model, steps)


def all_steps(model: ModelId, steps: str, jobs: int = 2) -> list[Outcome]:
    """Pull steps of a model; what became of each, in the order in which they ended."""
    plan = make_plan(model, steps, Lock())
    return list(pull_steps(plan, Lock(), jobs, _unheard, _unheard))


def _unheard(what: str, done: int, total: int) -> None:
    """Nobody wants to know."""


def _pull_steps_twice(
    endpoint: str,
    home: Path,
    bento_home: Path,
    model: ModelId,
    steps: str,
    answers: SimpleQueue[list[list[str]]],
) -> None:
    _settle(endpoint, home, bento_home)
    found = []
    for limit in (20_000, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        outcomes = all_steps(model, steps, jobs=1)
        found.append([each.error.message if each.error else "pulled" for each in outcomes])
        assert verify(Lock(), ask_hub=False) == []
    answers.put(found)


def _pull_twice(
    endpoint: str,
    home: Path,
    bento_home: Path,
    model: ModelId,
    kind: str,
    answers: SimpleQueue[list[str]],
) -> None:
    disk = {"downloads": home, "store": bento_home}.get(kind)
    if disk is not None:
        _own_namespace()
        disk.mkdir(exist_ok=True)
        _mount(disk, "32k")
    else:  # as a full disk or a quota does, this stops a file in the middle
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    _settle(endpoint, home, bento_home)
    first = _say(model)
    if disk is not None:
        _mount(disk, "8m", _MS_REMOUNT)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    answers.put([first, _say(model)])


def _say(model: ModelId) -> str:
    try:
        pull(model)
        return "pulled"
    except CheckpointError as error:
        return f"{error.message} [{len(store.stored_models())} models in store]"
    finally:
        assert verify(Lock(), ask_hub=False) == []


def _own_namespace() -> None:
    """As root of a user namespace any user may mount a tmpfs that nobody else sees."""
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _mount(directory: Path, size: str, flags: int = 0) -> None:
    options = f"size={size}".encode()
    _check(_libc.mount(b"none", os.fsencode(directory), b"tmpfs", flags, options))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
