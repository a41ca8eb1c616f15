"""A Ray cluster of two nodes on this machine, in a network that has nothing but a loopback.

Ray listens on all interfaces. What uses this module is started in namespaces of its own, which end
with it: ``unshare --net --uts --mount-proc --pid --fork --kill-child``, and ``--map-root-user``
where one is not root.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
STARTS = 8  # Ray gives the helpers of a node 15 seconds, which a busy machine may not have
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}


def start_cluster() -> tuple[Any, Any]:
    """The cluster, and its second node."""
    assert [name for _, name in socket.if_nameindex()] == ["lo"], "start it with unshare --net"
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    socket.sethostname("localhost")  # where Ray looks for this machine's address

    from ray.cluster_utils import Cluster

    head = {**NODE, "include_dashboard": False}
    cluster = _started(lambda: Cluster(initialize_head=True, head_node_args=head))
    second = _started(lambda: cluster.add_node(**NODE))
    cluster.wait_for_nodes()
    return cluster, second


def _started(start: Callable[[], Any]) -> Any:
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
