"""Everything that is installed in an image, as JSON. Runs inside it, with its Python alone.

docker run --rm -i --network none --entrypoint /app/.venv/bin/python IMAGE - \\
    <tools/image_inventory.py
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

BENTO = Path("/home/bentoml/bento")
FIELDS = ("Package", "Version", "Architecture")


def debian() -> list[dict[str, str]]:
    """Its packages; an image that is none of Debian's has none."""
    if not shutil.which("dpkg-query"):
        return []
    layout = "\\t".join(f"${{{field}}}" for field in FIELDS) + "\\n"
    done = subprocess.run(["dpkg-query", "-W", "-f", layout], capture_output=True, text=True)
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


def python() -> list[dict[str, str | None]]:
    """Distributions of this interpreter."""
    found = {each.metadata["Name"]: each for each in distributions()}
    return [
        {"name": name, "version": each.version, "license": each.metadata.get("License-Expression")}
        for name, each in sorted(found.items())
    ]


def weights(bento: Path = BENTO) -> list[dict[str, str]]:
    """Files of weights, with their SHA-256."""
    return [
        {"path": str(path.relative_to(bento)), "sha256": _sha256(path)}
        for path in sorted(bento.rglob("*.safetensors"))
    ]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


if __name__ == "__main__":
    release = platform.freedesktop_os_release()
    everything = {"os": release, "debian": debian(), "python": python(), "weights": weights()}
    json.dump(everything, sys.stdout)
