"""``pythia-bento pull NAME --steps`` as it is typed: lines, JSON, exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pythia_bento.checkpoints import plan as planning
from pythia_bento.checkpoints import store
from tests.hub import HubServer
from tests.integration.test_cli_checkpoints import Cli, cli

__all__ = ["cli"]
REPO, NAME = "EleutherAI/pythia-14m", "pythia-14m"


@pytest.fixture
def commits(hub: HubServer, bento_home: Path, sources: Path) -> dict[str, str]:
    places = {"main": "a", "step0": "b", "step1": "b", "step1000": "a", "step3000": "b"}
    return {branch: hub.folder.commit(REPO, branch, sources / of) for branch, of in places.items()}


def test_steps_are_pulled_in_order_and_a_missing_one_is_a_line(
    cli: Cli, commits: dict[str, str]
) -> None:
    status, out, err = cli("pull", NAME, "--steps", "0,1,2,1000", "--jobs", "3")
    assert status == 1
    wanted = [f"pythia-14m-int8:{commits[branch]}" for branch in ("step0", "step1", "step1000")]
    assert out.splitlines() == wanted
    missing = f"error: pythia-14m@step2: {REPO} has no revision 'step2' on the hub"
    assert [line for line in err.splitlines() if line.startswith("error")] == [missing]
    assert "warning: the weights of pythia-14m@step1 are also those of step0" in err
    assert "downloading pythia-14m " in err and "B/s" in err and "3/3" in err
    status, out, _ = cli("pull", NAME, "--steps", "0,1,1000")
    assert (status, out.splitlines()) == (0, [f"{tag} was there already" for tag in wanted])


def test_a_dry_run_says_what_it_would_take_and_takes_nothing(
    cli: Cli, hub: HubServer, commits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli("pull", f"{NAME}@step3000")
    hub.seen.clear()
    status, out, err = cli("pull", NAME, "--steps", "0,1,1000,2000,3000", "--dry-run")
    assert status == 1 and "pythia-14m@step2000: " in err
    assert not hub.requests("/resolve/") and len(store.stored_models()) == 1
    assert max(map(len, out.splitlines())) <= 80
    lines = [line.strip() for line in out.splitlines()]
    rows = {line.split()[0]: line for line in lines if line.startswith("step")}
    assert rows["step3000"].endswith("in the store")
    assert rows["step0"].endswith("weights of step3000") and "weights" not in rows["step1000"]
    assert "4 steps of pythia-14m, 2 sets of weights; to download " in out
    plan = json.loads(cli("pull", NAME, "--steps", "0,1000", "--dry-run", "--json").out)
    zero, late = plan["steps"]
    assert zero["download_bytes"] < late["download_bytes"]
    assert plan["download_bytes"] == zero["download_bytes"] + late["download_bytes"]
    assert (plan["distinct_weights"], plan["missing"], plan["shortage"]) == (2, [], "")
    assert late["commit"] == commits["step1000"] and not late["in_store"]


def test_what_was_pulled_is_a_line_a_model(
    cli: Cli, commits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "0 in the store, 0.0 MB" in cli("list", "--pulled").out
    cli("pull", NAME, "--steps", "0,1,1000")
    cli("pull", NAME)
    status, out, _ = cli("list", "--pulled")
    [row] = [line.split() for line in out.splitlines() if line.strip().startswith(NAME)]
    assert (status, row[:2], row[3:]) == (0, [NAME, "4"], ["step", "0,", "1,", "1000,", "main"])
    assert max(map(len, out.splitlines())) <= 80
    entries = json.loads(cli("list", "--pulled", "--json").out)
    ids = [f"{NAME}@step0", f"{NAME}@step1", f"{NAME}@step1000", NAME]
    assert [entry["model"] for entry in entries] == ids
    assert entries[0]["commit"] == commits["step0"]
    assert entries[0]["files"]["model.safetensors"] == entries[1]["files"]["model.safetensors"]


def test_json_has_what_was_pulled_and_what_was_not(cli: Cli, commits: dict[str, str]) -> None:
    result = cli("pull", NAME, "--steps", "1,2", "--json")
    one, two = json.loads(result.out)
    assert (one["model"], one["commit"]) == ("pythia-14m@step1", commits["step1"])
    assert one["same_weights"] == ["step0"] and result.status == 1
    assert two["model"] == "pythia-14m@step2" and "no revision 'step2'" in two["error"]


def test_no_room_is_said_before_anything_is_begun(
    cli: Cli, hub: HubServer, commits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda place: usage)
    status, _, err = cli("pull", NAME, "--steps", "0,1", "--dry-run")
    assert status == 0 and re.search(r"warning: .* has room for 0\.0 MB, and 2 steps of", err)
    status, _, err = cli("pull", NAME, "--steps", "0,1")
    assert status == 1 and "error: the disk is full: " in err
    assert not hub.requests("/resolve/")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((NAME, "--steps", "x"), "steps must be all, log, a list"),
        ((f"{NAME}@step1", "--steps", "all"), "--steps takes one model without a revision"),
        ((NAME, "pythia-31m", "--steps", "all"), "--steps takes one model without a revision"),
        ((NAME, "--dry-run"), "--jobs and --dry-run go with --steps"),
        ((NAME, "--jobs", "2"), "--jobs and --dry-run go with --steps"),
        ((NAME, "--steps", "0", "--jobs", "17"), "is not in the range 1<=x<=16"),
        (("bundled", "--steps", "all"), "comes with the package"),
        (("pythia-15m", "--steps", "all"), "there is no model"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    cli: Cli, hub: HubServer, arguments: tuple[str, ...], sentence: str
) -> None:
    status, out, err = cli("pull", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert sentence in err and not hub.seen


@pytest.mark.long  # a kill is in the short run: test_killed_pulls_go_on
def test_ctrl_c_ends_it_and_the_next_goes_on(
    hub: HubServer, commits: dict[str, str], tmp_path: Path
) -> None:
    hub.fail("/cdn/", cut_after=4000)
    hub.fail("/cdn/", delay=3, times=10**6)
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "BENTOML_HOME": str(tmp_path / "elsewhere"),
    }
    # What a shell runs in its background ignores Ctrl-C, and so would what that starts.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{hears}; from pythia_bento.cli import main; main()"
    command = [sys.executable, "-c", code, "pull", NAME, "--steps", "0,1,1000", "--jobs", "1"]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while len(hub.requests("/cdn/")) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err.splitlines()[-1]) == (1, "error: interrupted")
    hub.faults.clear()
    asked = hub.requests("/cdn/")
    again = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    # Which of the two weights comes first is the threads' affair; begun was one of them.
    goes_on = [seen for seen in hub.requests("/cdn/")[len(asked) :] if seen.path == asked[-1].path]
    assert goes_on[0].range
