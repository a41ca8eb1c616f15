"""docs/inside.md, executed, in one's own process and by a server: both print what stands there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pythia_bento
from pythia_bento.client import Activations, AsyncClient, Client, Row
from pythia_bento.errors import InvalidRequest, ModelNotFound, PayloadTooLarge
from pythia_bento.local.model import Model
from tests.e2e.serving import HTTP, ROOT, Server
from tests.e2e.test_readme import BINARIES, Block, blocks_of, lines

PAGE = (ROOT / "docs" / "inside.md").read_text()
PICTURE = ROOT / "docs" / "patching.png"
LOAD = 'lm = pythia_bento.load(models="bundled@*", progress=False)'
ASK = "from pythia_bento.client import Client\nlm = Client({!r})"
BLOCKS = blocks_of(PAGE)
# Runs programs one after the other in one namespace, once for each of several beginnings, and what
# each prints is a line of JSON. A command does not know of the beginning, and runs once.
DRIVER = """
import contextlib, io, json, subprocess, sys
beginnings, programs = json.load(sys.stdin)
commands = {}
for beginning in beginnings:
    names = {}
    for language, code in [("python", beginning), *programs]:
        if code in commands:
            print(commands[code], flush=True)
            continue
        out = io.StringIO()
        if language == "bash":
            shell = ["bash", "-euo", "pipefail", "-c", code]
            done = subprocess.run(shell, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            out.write(done.stdout)
        else:
            with contextlib.redirect_stdout(out):
                exec(compile(code, code, "exec"), names)
        line = json.dumps(out.getvalue())
        if language == "bash":
            commands[code] = line
        print(line, flush=True)
    names["lm"].close()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inside")


@pytest.fixture(scope="module")
def printed(folder: Path, server: Server, commands: Path) -> dict[str, list[str]]:
    """What each program prints, by what the page begins with: it imports transformers once."""
    first, *others = [block for block in BLOCKS if block.language != "text"]
    assert first.code.count(LOAD) == 1
    beginnings = [first.code, first.code.replace(LOAD, ASK.format(server.url))]
    programs = [(one.language, one.code.replace(".venv/bin", str(commands))) for one in others]
    environment = {**os.environ, "PYTHIA_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [commands / "python", "-c", DRIVER],
        cwd=folder,
        env=environment,
        input=json.dumps([beginnings, programs]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outputs = [json.loads(line) for line in done.stdout.splitlines()]
    here, there = outputs[: len(outputs) // 2], outputs[len(outputs) // 2 :]
    return {"here": here, "server": there}


def test_every_block_has_a_known_kind() -> None:
    assert {block.language for block in BLOCKS} == {"bash", "python", "text"}


@pytest.mark.parametrize("where", ["here", "server"])
def test_the_page_prints_what_stands_there(
    where: str, server: Server, printed: dict[str, list[str]], folder: Path
) -> None:
    found = iter(printed[where])
    shown = 0
    for block, following in zip(BLOCKS, [*BLOCKS[1:], Block("", "")], strict=True):
        if block.language == "text":
            continue
        output = next(found)
        if following.language == "text":
            assert lines(output) == lines(following.code), block.code
            shown += 1
        else:
            assert not output, block.code
    assert shown >= 10
    assert next(found, None) is None
    for picture in (folder / "patching.png", PICTURE):
        assert picture.read_bytes().startswith(b"\x89PNG")


CAPTURE = ["blocks.*.hook_resid_post", "blocks.1.attn.hook_pattern"]
TEXTS = ["Once upon a time", "The cat sat on the mat"]
CHANGE = {
    **{"site": "blocks.1.hook_resid_pre", "op": "add", "scale": 2.0, "positions": [-1]},
    "vector": np.linspace(-1, 1, 128, dtype=np.float32),
}


@pytest.fixture(scope="module")
def lm() -> Iterator[Model]:
    with pythia_bento.load(models="bundled@*", device="cpu", progress=False) as lm:
        yield lm


def assert_same(found: Activations, wanted: Activations) -> None:
    assert (found.model, found.fingerprint) == (wanted.model, wanted.fingerprint)
    for run, other in zip(found, wanted, strict=True):
        assert list(run) == list(other)
        for name, array in run.items():
            assert array.shape == other[name].shape
            assert array.tobytes() == other[name].tobytes(), name
        assert (run.tokens, run.token_ids) == (other.tokens, other.token_ids)
        assert run.completion == other.completion


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_server_has_the_bits_of_ones_own_process(
    server: Server, lm: Model, dtype: str
) -> None:
    options: dict[str, Any] = {
        **{"capture": CAPTURE, "model": "bundled@step512", "interventions": [CHANGE]},
        **{"dtype": dtype, "max_tokens": 3, "seed": 5, "logprobs": 1},
        "logits": {"tokens": [5, 6], "positions": [-1]},
    }
    wanted = lm.activations(TEXTS, **options)
    for url in (server.url, f"grpc://127.0.0.1:{server.grpc_port}"):
        with Client(url) as client:
            assert_same(client.activations(TEXTS, **options), wanted)
        async with AsyncClient(url) as aclient:
            found = await aclient.activations(TEXTS, **options)
            assert_same(found, wanted)
            alone = [(await aclient.activations(text, **options))[0] for text in TEXTS]
        for run, other in zip(alone, wanted, strict=True):
            assert all(run[name].tobytes() == other[name].tobytes() for name in other)
        assert found[0]["blocks.1.hook_resid_post"].dtype == np.float32


async def test_errors_and_patches_are_those_of_ones_own_process(server: Server, lm: Model) -> None:
    metric = ("logit_diff", " blue", " yellow")
    asked = ("Question: What color is the sky?", "Question: What color is the sun?")
    wanted = lm.patch(*asked, "resid_pre.*", metric=metric, names="interp-engine")
    async with AsyncClient(server.url) as client:
        found = await client.patch(*asked, "resid_pre.*", metric=metric, names="interp-engine")
        assert found.values.tobytes() == wanted.values.tobytes()
        assert (found.clean, found.corrupted) == (wanted.clean, wanted.corrupted)
        for capture, kind in (("blocks.3.hook_resid_pre", InvalidRequest), ("x", InvalidRequest)):
            with pytest.raises(kind) as there:
                await client.activations("a", capture=capture)
            with pytest.raises(kind) as here:
                lm.activations("a", capture=capture)
            assert there.value.message == here.value.message
        with pytest.raises(ModelNotFound):
            await client.activations("a", capture=CAPTURE, model="bundled@step65")
    steered = lm.generate(TEXTS[0], interventions=[CHANGE], seed=1, max_tokens=9)
    with Client(server.url) as sync:
        there = sync.generate(TEXTS[0], interventions=[CHANGE], seed=1, max_tokens=9)
    assert there.outputs == steered.outputs
    assert there.summary.fingerprint == steered.summary.fingerprint


def test_a_sweep_tells_few_numbers_and_its_command_writes_all(
    server: Server, lm: Model, commands: Path, tmp_path: Path
) -> None:
    steps = [64, 3000]
    few = {"site": "blocks.*.hook_resid_post", "reduce": "mean"}
    with Client(server.url) as client:
        task = {"type": "activations", "capture": [few]}
        events = list(client.sweep(TEXTS, steps=steps, task=task))
        rows = {(one.checkpoint, one.item): one for one in events if isinstance(one, Row)}
        for index, step in enumerate(steps):
            wanted = lm.activations(TEXTS, capture=few, model=f"bundled@step{step}")
            for item, other in enumerate(wanted):
                run = rows[index, item].run
                assert run is not None and list(run) == list(other)
                assert all(run[name].tobytes() == other[name].tobytes() for name in other)
        task = {"type": "activations", "capture": CAPTURE}
        long = [TEXTS[0] * 20]
        [row] = [e for e in client.sweep(long, steps=[64], task=task) if isinstance(e, Row)]
        assert isinstance(row.error, PayloadTooLarge)
        assert "more than the 4,096 numbers of a row" in row.error.message
        assert client.activations(long, capture=CAPTURE)
    answer = HTTP.post(
        f"{server.url}/v1/sweep",
        json={"items": [{"prompt": "a"}], "task": {"type": "activations", "capture": [few]}},
        headers={"accept": "application/vnd.apache.arrow.stream"},
    )
    assert answer.status_code == 400 and "activations are no columns" in answer.text
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    sites = [part for site in CAPTURE for part in ("--capture", site)]
    command = ["sweep", "bundled", "--steps", "64", "--items", "texts.txt", "--task", "activations"]
    asking = ["--output", "there", "--server", server.url]
    for binaries, place in ((BINARIES, asking), (commands, ["--output", "here"])):
        subprocess.run(
            [binaries / "pythia-bento", *command, *sites, *place],
            cwd=tmp_path,
            env={**os.environ, "PYTHIA_DEVICE": "cpu", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        )
    there, here = (
        (tmp_path / place / "model=bundled" / "step=000064.safetensors").read_bytes()
        for place in ("there", "here")
    )
    assert there == here
