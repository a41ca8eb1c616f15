"""What some tests need from the system, and where Debian has it.

usage: python -m tests.needs [NAME...]

installs what is missing, as root where apt-get is (`make test`): of these, or of all that tests
themselves start.

A test says ``@pytest.mark.needs("promtool")``; where that is missing it is left out, and a line
says so (``tests/left_out.py``).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.deaf import deaf

EVAL = Path(__file__).parents[1] / ".venv-eval"
CLIENTS, CLIENTS_LOAD, NPM_CLIENTS = (
    Path(__file__).parents[1] / name
    for name in (".venv-clients", ".venv-clients-load", ".npm-clients")
)
RAY = Path(__file__).parents[1] / ".venv-ray"
WHEEL = Path(__file__).parents[1] / ".venv-wheel"
NAMESPACES = "unshare --user --map-root-user --mount --net mount -t tmpfs none /tmp"
# Nothing asks, and nothing is installed that only goes well with a package.
APT = "apt-get -qq -o DPkg::Use-Pty=0 -o APT::Install-Recommends=false"


class Need(NamedTuple):
    """How it is looked up, and the Debian package that brings it, if one does."""

    look_up: Callable[[], bool]
    package: str = ""
    is_named: bool = False
    """Whether it is installed only for who names it."""


def _command(name: str, package: str) -> Need:
    return Need(lambda: shutil.which(name) is not None, package)


def _has_gpu() -> bool:
    import torch  # slow, and `python -m tests.needs` has no use for it

    return torch.cuda.is_available()


def _has_wgmma() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9


def _may_make_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and not subprocess.run(NAMESPACES.split(), capture_output=True).returncode


def _may_filter_sockets() -> bool:
    try:
        with socket.socket() as client, deaf(client):
            return True
    except OSError:
        return False


NEEDS = {
    "chromedriver": _command("chromedriver", "chromium-driver"),
    "chromium": _command("chromium", "chromium"),
    "curl": _command("curl", "curl"),
    "dpkg-query": _command("dpkg-query", ""),  # images are Debian's
    "gpu": Need(_has_gpu),
    "lm-eval": Need((EVAL / ".ready").exists),  # `make eval`
    "namespaces": Need(_may_make_namespaces),  # containers often forbid it
    "node programs": Need((NPM_CLIENTS / ".ready").exists),  # `make clients`
    "npm": Need(lambda: shutil.which("npm") is not None, "npm", is_named=True),
    "python programs": Need(  # the same
        lambda: all((place / ".ready").exists() for place in (CLIENTS, CLIENTS_LOAD))
    ),
    "ray": Need((RAY / ".ready").exists),  # `make ray`
    "promtool": _command("promtool", "prometheus"),
    # It needs Python 3.11.
    "schemathesis": Need(lambda: importlib.util.find_spec("schemathesis") is not None),
    "sm_90": Need(_has_wgmma),  # Hopper's matrix instructions
    "socket filters": Need(_may_filter_sockets),  # some systems keep them for root
    "ssh-keygen": _command("ssh-keygen", "openssh-client"),
    "wheel tools": Need((WHEEL / ".ready").exists),  # `make wheel`
}


@functools.cache
def is_here(name: str) -> bool:
    """Raises KeyError for a name that is not in ``NEEDS``."""
    return NEEDS[name].look_up()


def install(names: Sequence[str] = ()) -> None:
    """Never an error: what cannot be installed is left out of the tests."""
    wanted = {name: need for name, need in NEEDS.items() if need.package}
    chosen = names or [name for name, need in wanted.items() if not need.is_named]
    missing = [name for name in chosen if not wanted[name].look_up()]
    if not missing:
        return
    packages = " ".join(sorted({NEEDS[name].package for name in missing}))
    if os.geteuid() or not shutil.which("apt-get"):
        why = "only root can install them, with apt-get"
    else:
        print(f"== apt-get install {packages}: some tests need {', '.join(missing)}", flush=True)
        why = _apt_get("update") or _apt_get(f"install {packages}")
    if why:
        print(f"== tests that need {', '.join(missing)} are left out: {why}", flush=True)


def _apt_get(arguments: str) -> str:
    """Why it failed, in its own last words."""
    done = subprocess.run(
        f"{APT} -y {arguments}".split(),
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 0:
        return ""
    return (done.stdout.strip() or f"apt-get {arguments} failed").splitlines()[-1]


if __name__ == "__main__":
    install(sys.argv[1:])
