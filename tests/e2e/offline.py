"""Serve without any network but a loopback of one's own, ask once, print the answer.

usage: unshare --net python -m tests.e2e.offline HOME BENTO BODY
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.serving import BENTOML, ROOT, START_SECONDS, serve

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def answer_offline(home: Path, bento: str, body: str) -> bytes:
    """What a Bento answers on ``/generate`` when no network can be reached."""
    # Root may cut the network as it is, others within a user namespace.
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    command = [*unshare, sys.executable, "-m", "tests.e2e.offline", str(home), bento, body]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=2 * START_SECONDS)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


def main(home: str, bento: str, body: str) -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    # From another directory, so that the working tree cannot help.
    with serve(Path(home), bento, bentoml=[BENTOML], cwd=Path(home)) as server:
        response = httpx.post(f"{server.url}/generate", content=body, timeout=60)
        assert response.status_code == 200, response.text
        sys.stdout.buffer.write(response.content)


if __name__ == "__main__":
    main(*sys.argv[1:])
