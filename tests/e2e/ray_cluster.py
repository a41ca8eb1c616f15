"""Sweeps on a real Ray cluster of two nodes, in a network that has nothing but a loopback.

usage: unshare ... python -m tests.e2e.ray_cluster FOLDER    by the Python of ``.venv-ray``

FOLDER has items.jsonl. What is swept goes to FOLDER/<name>, what happened to FOLDER/<name>.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from bench.serving.ray_nodes import scorers, start_cluster
from pythia_bento.cli.sweeping import sweep_into
from pythia_bento.sweep.events import Done, Event
from pythia_bento.sweep.files import Recorder
from pythia_bento.sweep.ray import units, work
from pythia_bento.sweep.ray.actor import Scorer

BLOCK = 8  # items of a unit, so that a checkpoint has several
HELD_SECONDS = 60
Losses = Mapping[int, Callable[[], Any]]  # by checkpoints whose files are there at that moment


def held() -> list[int]:
    """Of checkpoints, before which something is still to be lost."""
    return [int(path.name) for path in Path(os.environ["HELD"]).iterdir()]


class HeldScorer(Scorer):
    """Begins a checkpoint when what is to be lost before it was lost: then it has units to lose.

    But for a unit that Ray computes again behind one that waits here: then after ``HELD_SECONDS``.
    Ray's processes have the environment of the nodes, which are started by this one.
    """

    def __call__(self, batch: Any) -> Any:
        [group] = batch.column("group").to_pylist()
        end = time.monotonic() + HELD_SECONDS
        while time.monotonic() < end and any(group >= count for count in held()):
            time.sleep(0.02)
        return super().__call__(batch)


class Losing(Recorder):
    """Loses something when so many files are there, and no more can come."""

    losses: ClassVar[Losses] = {}
    told: ClassVar[list[Any]] = []

    def record(self, event: Event) -> None:
        super().record(event)
        if isinstance(event, Done) and (lose := self.losses.get(self.num_done)):
            self.told.append({"files": self.num_done, "did": lose()})
            (Path(os.environ["HELD"]) / str(self.num_done)).unlink()


def kill_one() -> int:
    pid = scorers()[0]
    os.kill(pid, signal.SIGKILL)
    return pid


def swept(folder: Path, name: str, ray: str | None, losses: Losses) -> None:
    Losing.losses, Losing.told = losses, []
    for count in losses:
        (Path(os.environ["HELD"]) / str(count)).touch()
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            sweep_into(
                folder / name,
                ["bundled"],
                folder / "items.jsonl",
                steps=None,
                task={"type": "score", "tokens": True},
                suffix="parquet",
                shard=None,
                shard_by="checkpoints",
                server=None,
                api_key=None,
                ray=ray,
                plot=False,
            )
        failed = ""
    except BaseException as error:
        failed = f"{error!r}: {told.getvalue()[-2000:]}"
    (folder / f"{name}.json").write_text(json.dumps({"failed": failed, "lost": Losing.told}))


@mock.patch.object(units, "BLOCK", BLOCK)
@mock.patch.object(work, "Scorer", HeldScorer)
@mock.patch("pythia_bento.cli.sweeping.Recorder", Losing)
def main(folder: Path) -> None:
    os.environ["HELD"] = str(folder / "held")
    (folder / "held").mkdir()
    swept(folder, "alone", None, {})
    cluster, second = start_cluster()

    def remove() -> str:
        cluster.remove_node(second)
        return str(second.node_id)

    swept(folder, "plain", cluster.address, {})
    swept(folder, "lossy", cluster.address, {1: kill_one, 3: remove})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
