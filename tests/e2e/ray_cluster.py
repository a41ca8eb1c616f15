"""Sweeps on a real Ray cluster of two nodes, in a network that has nothing but a loopback.

usage: unshare ... python -m tests.e2e.ray_cluster FOLDER    by the Python of ``.venv-ray``

FOLDER has items.jsonl. What is swept goes to FOLDER/<name>, what happened to FOLDER/<name>.json.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pythia_bento.cli.sweeping import sweep_into
from pythia_bento.sweep.ray import units

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
BLOCK = 64  # items of a unit, so that a checkpoint has several
STARTS = 8  # Ray gives the helpers of a node 15 seconds, which a busy machine may not have
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
STEPS = 6


def loopback_alone() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    socket.sethostname("localhost")  # where Ray looks for this machine's address


def started(start: Callable[[], Any]) -> Any:
    """What it gives, at the first start that succeeds."""
    for left in reversed(range(STARTS)):
        try:
            return start()
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
            print("a node begins again", file=sys.stderr)


def scorers() -> list[int]:
    """Process ids of actors that compute."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if name.startswith(b"ray::") and b"Scorer" in name:
            found.append(int(place.name))
    return sorted(found)


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
    try:
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
        failed = repr(error)
    if between:
        between.join()
    said = {"failed": failed, "files": between and between.files, "did": between and between.did}
    (folder / f"{name}.json").write_text(json.dumps(said))


def main(folder: Path) -> None:
    loopback_alone()
    from ray.cluster_utils import Cluster

    units.BLOCK = BLOCK
    swept(folder, "alone", None)
    head = {**NODE, "include_dashboard": False}
    cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
    second = started(lambda: cluster.add_node(**NODE))
    cluster.wait_for_nodes()
    address = cluster.address
    swept(folder, "plain", address)
    swept(folder, "killed", address, Between(folder / "killed", kill_one))

    def remove() -> str:
        cluster.remove_node(second)
        return str(second.node_id)

    swept(folder, "removed", address, Between(folder / "removed", remove))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
