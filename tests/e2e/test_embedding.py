"""docs/embedding.md, executed: each example is written to a file, served and asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.serving import ROOT, Server, serve
from tests.e2e.test_readme import blocks_of

PAGE = (ROOT / "docs" / "embedding.md").read_text()
KINDS = ("python", "sh", "bash", "text")


class Example(NamedTuple):
    """A module, how it is served, how it is asked, and what it answers."""

    module: str
    served: str
    asked: str
    answer: str

    @property
    def name(self) -> str:
        return self.module.partition(".py\n")[0].removeprefix("# ")


def examples() -> Iterator[Example]:
    blocks = blocks_of(PAGE)
    assert tuple(block.language for block in blocks) == KINDS * (len(blocks) // len(KINDS))
    for place in range(0, len(blocks), len(KINDS)):
        yield Example(*(block.code for block in blocks[place : place + len(KINDS)]))


EXAMPLES = {example.name: example for example in examples()}


def test_there_are_three_ways() -> None:
    assert list(EXAMPLES) == ["gateway", "remote", "perplexity"]


async def test_an_example_without_a_dependency_answers_so_without_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHIA_DEVICE", "cpu")
    example = EXAMPLES["perplexity"]
    module: dict[str, Any] = {"__name__": "perplexity"}
    monkeypatch.setitem(sys.modules, "perplexity", types.ModuleType("perplexity"))
    exec(compile(example.module, "perplexity.py", "exec"), module)
    [body] = re.findall(r"-d '(.*)'", example.asked)
    service = module["Perplexity"].inner()
    await service.load()
    try:
        assert str(await service.perplexity(**json.loads(body))) == example.answer.strip()
    finally:
        await service.close()


@pytest.mark.long
@pytest.mark.needs("curl")
@pytest.mark.parametrize("name", EXAMPLES)  # what two of them show, test_depends.py does too
def test_an_example_answers_what_stands_below_it(
    name: str, server: Server, home: Path, tmp_path: Path
) -> None:
    example = EXAMPLES[name]
    pythia = server.url.removeprefix("http://")
    (tmp_path / f"{name}.py").write_text(example.module.replace("localhost:3000", pythia))
    found = re.fullmatch(r"bentoml serve (\w+:\w+) --port 4000\n", example.served)
    assert found and found[1].startswith(f"{name}:")
    # A probe that comes while a dependency starts keeps BentoML for a minute, also at its end.
    first = "Completed async startup hook" if name == "gateway" else ""
    with serve(home, found[1], cwd=tmp_path, first=first) as own:
        asked = example.asked.replace("localhost:4000", own.url.removeprefix("http://"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", asked],
            env={**os.environ, "no_proxy": "*"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == example.answer.strip()


def test_links_to_files_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE)
    assert targets
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
