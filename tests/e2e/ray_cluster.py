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
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.serving.ray_nodes import scorers, start_cluster
from pythia_bento.cli.sweeping import sweep_into
from pythia_bento.sweep.ray import units

BLOCK = 64  # items of a unit, so that a checkpoint has several


class Between(threading.Thread):
    """Does something when the first checkpoints are there and others are not."""

    def __init__(self, folder: Path, what: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._folder, self._what = folder, what
        self.files = 0  # that were there at that moment
        self.did: Any = None

    def run(self) -> None:
        while not (found := list(self._folder.glob("model=*/[!.]*"))):
            time.sleep(0.02)
        self.files = len(found)
        self.did = self._what()


def kill_one() -> int:
    pid = scorers()[0]
    os.kill(pid, signal.SIGKILL)
    return pid


def swept(folder: Path, name: str, ray: str | None, between: Between | None = None) -> None:
    if between:
        between.start()
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
    if between:
        between.join()
    said = {"failed": failed, "files": between and between.files, "did": between and between.did}
    (folder / f"{name}.json").write_text(json.dumps(said))


def main(folder: Path) -> None:
    units.BLOCK = BLOCK
    swept(folder, "alone", None)
    cluster, second = start_cluster()
    address = cluster.address
    swept(folder, "plain", address)
    swept(folder, "killed", address, Between(folder / "killed", kill_one))

    def remove() -> str:
        cluster.remove_node(second)
        return str(second.node_id)

    swept(folder, "removed", address, Between(folder / "removed", remove))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
