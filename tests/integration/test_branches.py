"""``checkpoints``: which branches hold the same weights, found without a download."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from pythia_bento import __version__
from pythia_bento.catalog import parse
from pythia_bento.checkpoints.branches import Branch, list_branches
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.files import sha256
from pythia_bento.cli import commands
from pythia_bento.errors import CheckpointError, ModelNotFound
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.sources import sources_hash
from pythia_bento.server.http.openai import create_app
from pythia_bento.settings import Settings
from tests.hub import HubServer

REPO = "EleutherAI/pythia-14m"
NAME = parse("pythia-14m")


@pytest.fixture
def branches(hub: HubServer, sources: Path, tmp_path: Path) -> None:
    """Main is also step2000; step0 is step1; step4000 has the first shard of step3000."""
    places = {
        "main": "a",
        "step0": "b",
        "step1": "b",
        "step2000": "a",
        "step143000": "a",
        "other": "a",
    }
    for branch, source in places.items():
        hub.folder.commit(REPO, branch, sources / source)
    for branch, second in {"step3000": b"2", "step4000": b"3"}.items():
        shards = tmp_path / branch
        shards.mkdir()
        (shards / "model-00001-of-00002.safetensors").write_bytes(b"1")
        (shards / "model-00002-of-00002.safetensors").write_bytes(second)
        hub.folder.commit(REPO, branch, shards)


def by_name() -> dict[str, Branch]:
    return {branch.name: branch for branch in list_branches(NAME)}


def test_all_steps_are_listed_in_order_without_a_download(
    hub: HubServer, branches: None, sources: Path
) -> None:
    done: list[tuple[str, int, int]] = []
    found = list_branches(NAME, lambda *state: done.append(state))
    names = ["main", "step0", "step1", "step2000", "step3000", "step4000", "step143000"]
    assert [branch.name for branch in found] == names
    assert {branch.name: branch.commit for branch in found}.items() <= hub.folder.refs(REPO).items()
    assert found[0].weight_hash == sha256(sources / "a" / "model.safetensors")
    assert done[-1] == ("asking for pythia-14m", 7, 7)
    assert not hub.requests("/resolve/") and not hub.requests("/resolve/", "HEAD")


def test_equal_weights_are_flagged(branches: None) -> None:
    found = by_name()
    assert found["step0"].same_as == ("step1",)
    assert found["step1"].same_as == ("step0",)
    assert set(found["step2000"].same_as) == {"main", "step143000"}
    assert found["main"].same_as == ("step2000",)  # that it is the last step is as it should be
    assert found["step4000"].same_as == ()
    assert found["step4000"].shares_with == ("step3000",)
    assert found["step3000"].weight_hash != found["step4000"].weight_hash


def test_pickles_are_compared_where_there_is_nothing_else(
    hub: HubServer, sources: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(sources / "a", old)
    (old / "model.safetensors").unlink()
    hub.folder.commit(REPO, "step1", old)
    hub.folder.commit(REPO, "step2", old)
    shutil.copytree(old, tmp_path / "empty", ignore=shutil.ignore_patterns("*.bin", "*.pt"))
    hub.folder.commit(REPO, "step4", tmp_path / "empty")
    hub.folder.commit(REPO, "step8", tmp_path / "empty")
    found = by_name()
    assert found["step1"].same_as == ("step2",)
    assert found["step4"].same_as == () and found["step4"].weight_hash == ""


def test_rate_limit_is_waited_for(hub: HubServer, branches: None) -> None:
    hub.fail("/revision/", status=429, headers={"RateLimit": '"api";r=0;t=0'}, times=3)
    assert len(by_name()) == 7


def test_one_lasting_failure_fails_the_list(hub: HubServer, branches: None) -> None:
    commit = hub.folder.refs(REPO)["step1"]
    hub.fail(f"/revision/{commit}", status=403)
    with pytest.raises(CheckpointError, match="answered 403"):
        list_branches(NAME)


def test_unknown_repository_is_not_found(hub: HubServer) -> None:
    with pytest.raises(ModelNotFound):
        list_branches(NAME)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_table_and_json(branches: None) -> None:
    table = run("checkpoints", "pythia-14m")
    assert "step143000" in table and "7 branches, 7 flagged" in table
    rows = json.loads(run("checkpoints", "pythia-14m", "--json"))
    assert [row["step"] for row in rows] == [143000, 0, 1, 2000, 3000, 4000, 143000]


def test_the_table_fits_a_terminal(branches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = json.loads(run("checkpoints", "pythia-14m", "--json"))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    for columns, digits in (("80", 12), ("200", 40)):
        monkeypatch.setenv("COLUMNS", columns)
        table = re.sub(r"\x1b\[[\d;]*m", "", run("checkpoints", "pythia-14m"))
        assert max(map(len, table.splitlines())) <= int(columns)
        assert all(row["commit"][:digits] in table for row in rows)
        assert (rows[0]["commit"] in table) is (digits == 40)
        assert ("hashes are whole with --json" in table) is (digits == 12)


def test_a_pulled_branch_says_what_it_equals(branches: None, bento_home: Path) -> None:
    assert "warning: the weights of pythia-14m@step1 are also those of step0" in run_stderr()
    assert load_checkpoint("pythia-14m@step1").same_weights == ("step0",)


def test_serving_such_a_branch_warns(
    branches: None, bento_home: Path, hub: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    run("pull", "pythia-14m@step1")
    settings = Settings(model="pythia-14m@step1", device="cpu", kv_cache_gb=0.01)
    with PythiaRunner.load(settings) as runner:
        commit = hub.folder.refs(REPO)["step1"]
        names = [runner.info.id, *runner.info.aliases]
        ids = ["pythia-14m@step1", f"pythia-14m@{commit}", "pythia-14m"]
        assert names == [*ids, *(f"EleutherAI/{id}" for id in ids)]
        for name in names:
            assert asyncio.run(runner.served(name)) is runner
        for owner in ("", "EleutherAI/"):
            nearest = f"{owner}pythia-14m@step1, {owner}pythia-14m"
            with pytest.raises(ModelNotFound, match=f"the nearest names are {nearest}$"):
                asyncio.run(runner.served(f"{owner}pythia-14m@step2"))
        provenance = runner.info.provenance
        assert provenance is not None
        assert (provenance.commit, provenance.same_weights) == (commit, ("step0",))
    assert "the weights of pythia-14m@step1 are also those of step0" in caplog.messages


async def test_answers_name_what_is_served(branches: None, bento_home: Path) -> None:
    """Commit, hashes of the 8-bit files, arithmetic, version, and branches with these weights."""
    run("pull", "pythia-14m@step1")
    settings = Settings(model="pythia-14m@step1", device="cpu", kv_cache_gb=0.01)
    app = create_app()
    with PythiaRunner.load(settings) as app.state.runner:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            [card] = (await client.get("/models")).json()["data"]
            body = {"prompt": [5, 6], "max_tokens": 1, "model": f"{REPO}@step1"}
            answer = (await client.post("/completions", json=body)).json()
            of_the_hub = await client.get(f"/models/{REPO}@step1")
            assert of_the_hub.json() == card
    checkpoint, provenance = load_checkpoint("pythia-14m@step1"), card["provenance"]
    stored = checkpoint.path / "model.safetensors"
    assert provenance["same_weights"] == ["step0"]
    assert provenance["commit"] == checkpoint.commit
    assert provenance["files"]["model.safetensors"] == sha256(stored)
    assert (provenance["matmul"], provenance["version"]) == ("w8a16", __version__)
    short = (
        f"{str(checkpoint.commit)[:12]}-{provenance['weights_sha256'][:12]}-{sources_hash('cpu')}"
    )
    assert card["system_fingerprint"] == f"pythia-bento-{__version__}-{short}-cpu-w8a16"
    assert answer["system_fingerprint"] == card["system_fingerprint"]


def run_stderr() -> str:
    return CliRunner().invoke(commands, ["pull", "pythia-14m@step1"]).stderr
