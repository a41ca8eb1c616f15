"""The README and docs/grpc.md, executed: commands against a real server, tables against the code.

``bash`` and ``python`` blocks run; a ``text`` or ``json`` block after one is its output. ``sh``
blocks set things up, which `.ci/run` does: here their make targets must exist.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.serving import HTTP, ROOT, Server

README = (ROOT / "README.md").read_text()
BINARIES = Path(sys.executable).parent
REQUEST_ID = re.compile(r"cmpl-[0-9a-f]{32}")
HASH = re.compile("[0-9a-f]{12}")  # in a fingerprint


class Block(NamedTuple):
    language: str
    code: str


def blocks_of(text: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)]


def runnable(name: str, blocks: list[Block]) -> dict[str, tuple[Block, Block | None]]:
    """Those that are run, each with its output if that follows."""
    return {
        f"{name}-{block.language}-{index}": (
            block,
            following if following.language in OUTPUTS else None,
        )
        for index, (block, following) in enumerate(
            zip(blocks, [*blocks[1:], Block("", "")], strict=True)
        )
        if block.language in ("bash", "python")
    }


OUTPUTS = ("text", "json")
GRPC = (ROOT / "docs" / "grpc.md").read_text()
BLOCKS = [*blocks_of(README), *blocks_of(GRPC)]
RUNNABLE = runnable("readme", blocks_of(README)) | runnable("grpc", blocks_of(GRPC))


def test_every_block_has_a_known_kind() -> None:
    assert {block.language for block in BLOCKS} <= {"sh", "bash", "python", *OUTPUTS}
    assert len(RUNNABLE) >= 5
    shown = sum(block.language in OUTPUTS for block in BLOCKS)
    assert shown == sum(output is not None for _, output in RUNNABLE.values())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.needs("curl") if "curl" in block.code else ())
        for name, (block, _) in RUNNABLE.items()
    ],
)
def test_block_prints_what_stands_below_it(name: str, server: Server, commands: Path) -> None:
    block, expected = RUNNABLE[name]
    printed = run(block, server, commands)
    assert expected is not None
    if expected.language == "json":
        printed, shown = (REQUEST_ID.sub("", text) for text in (printed, expected.code))
        assert_same(json.loads(printed), json.loads(shown))
    else:
        assert lines(printed) == lines(expected.code)


def run(block: Block, server: Server, commands: Path, folder: Path = ROOT) -> str:
    """What a block prints, with this server and these commands in place of the README's."""
    host = server.url.removeprefix("http://")
    code = block.code.replace("localhost:3000", host).replace(".venv/bin", str(commands))
    code = code.replace("localhost:3001", f"127.0.0.1:{server.grpc_port}")
    shell = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [commands / "python", "-c"]}
    done = subprocess.run(
        [*shell[block.language], code],
        cwd=folder,
        env={**os.environ, "PYTHIA_DEVICE": "cpu"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(value: Any, expected: Any) -> None:
    """Equal to the last bit, but for the time, and the hashes in a fingerprint."""
    assert type(value) is type(expected)
    if isinstance(expected, dict):
        assert list(value) == list(expected)
        for key in expected:
            if key == "system_fingerprint":
                assert HASH.sub("#", value[key]) == HASH.sub("#", expected[key])
            elif key != "created":
                assert_same(value[key], expected[key])
    elif isinstance(expected, list):
        assert len(value) == len(expected)
        for one, other in zip(value, expected, strict=True):
            assert_same(one, other)
    else:
        assert value == expected


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def test_make_targets_exist() -> None:
    setup = "".join(block.code for block in BLOCKS if block.language == "sh")
    named = set(re.findall(r"`make ([a-z-]+)", README)) | set(
        re.findall(r"\bmake ([a-z-]+)", setup)
    )
    assert {"serve", "test", "lint"} <= named
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[1] for line in listed.stdout.splitlines()}
    assert named <= targets


def test_endpoints_exist(server: Server) -> None:
    rows = re.findall(r"^\| `(GET|POST) (\S+)` \|", README, re.M)
    assert len(rows) >= 8
    for method, path in rows:
        # Not JSON: refused by whatever is there, without work.
        status = HTTP.request(method, server.url + path, content=b"{" if method == "POST" else None)
        assert status.status_code == (200 if method == "GET" else 400), (method, path)


def test_links_to_files_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target.partition("#")[0]).exists(), target
