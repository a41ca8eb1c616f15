"""A hub with one small random checkpoint, on loopback: ``python -m deploy.image.hub FOLDER``.

Prints its address, and serves until its input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.hub import HubServer
from tests.models import random_checkpoint

REPO, BRANCH = "EleutherAI/pythia-14m", "step3000"


def main(folder: Path) -> None:
    """Serve it."""
    source = random_checkpoint(folder / "source", heads=2, head_dim=16)
    with HubServer(folder / "hub") as hub:
        commit = hub.folder.commit(REPO, BRANCH, source)
        hub.folder.point(REPO, "main", commit)
        print(hub.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
