"""docs/activations.md, executed against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, Server
from tests.e2e.test_readme import Block, blocks_of, lines, run, runnable

BLOCKS = runnable("activations", blocks_of((ROOT / "docs" / "activations.md").read_text()))


@pytest.mark.needs("curl")
@pytest.mark.parametrize("name", BLOCKS)
def test_block_prints_what_stands_below_it(
    name: str, server: Server, commands: Path, tmp_path: Path
) -> None:
    block, expected = BLOCKS[name]
    assert isinstance(expected, Block)
    assert lines(run(block, server, commands, tmp_path)) == lines(expected.code)


def test_there_are_some() -> None:
    assert len(BLOCKS) >= 6
