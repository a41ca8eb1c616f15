"""``pythia-bento pull | lock | verify | quantize`` against a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from huggingface_hub import constants

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.cli import main
from pythia_bento.errors import CheckpointError
from tests.hub import HubServer

REPO, MODEL = "EleutherAI/pythia-14m", "pythia-14m@step3000"


class Result(NamedTuple):
    status: object
    out: str
    err: str


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Result:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        return Result(caught.value.code or 0, *self._capsys.readouterr())


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs commands in an empty directory."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return Cli(capsys)


# Several commands in one process: it takes seconds to import what they need.
_COMMANDS = """
import json, sys
from pythia_bento.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
"""


def commands(*each: list[str], env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run commands one after another; standard error has the status of each at its end."""
    return subprocess.run(
        [sys.executable, "-c", _COMMANDS, json.dumps(each)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def commit(hub: HubServer, bento_home: Path, sources: Path) -> str:
    hub.folder.commit(REPO, "main", sources / "b")
    return hub.folder.commit(REPO, "step3000", sources / "a")


def test_pull_lock_verify(cli: Cli, commit: str) -> None:
    status, out, err = cli("pull", MODEL)
    assert (status, out) == (0, f"pythia-14m-int8:{commit}\n")
    assert f"downloading {MODEL}" in err and "B/s" in err and "quantising" in err
    assert cli("pull", MODEL).out == f"pythia-14m-int8:{commit} was there already\n"
    assert cli("lock", MODEL).out == f"{MODEL} is {commit}\n"
    assert Lock.read().models[MODEL].int8["model.safetensors"].size
    assert cli("verify") == (0, "no difference\n", "")
    assert load_checkpoint(MODEL).commit == commit


def test_json_of_what_changes_something(cli: Cli, commit: str) -> None:
    def asked(*arguments: str) -> object:
        result = cli(*arguments, "--json")
        assert result.status == 0, result.err
        return json.loads(result.out)

    entry = {"model": MODEL, "tag": f"pythia-14m-int8:{commit}", "commit": commit}
    for was_there in (False, True):
        assert asked("pull", MODEL) == [entry | {"was_there": was_there, "same_weights": []}]
    for was in (None, commit):
        assert asked("lock", MODEL) == [{"model": MODEL, "commit": commit, "was": was}]
    assert asked("verify") == {"differences": []}
    path = load_checkpoint(MODEL).path / "config.json"
    path.write_text("{}")
    status, out, _ = cli("verify", "--offline", "--json")
    [line] = json.loads(out)["differences"]
    assert status == 1 and "config.json is 2 bytes long" in line


def test_nothing_to_verify_is_no_success(cli: Cli, bento_home: Path) -> None:
    line = "error: nothing to verify: pythia.lock pins no model, and none was pulled\n"
    assert cli("verify", "--offline") == (2, "", line)


def test_a_moved_branch(cli: Cli, commit: str, hub: HubServer, sources: Path) -> None:
    cli("pull", MODEL)
    cli("lock", MODEL)
    moved = hub.folder.commit(REPO, "step3000", sources / "b")
    status, out, _ = cli("verify")
    assert status == 1
    assert out == f"{MODEL} ({commit}): step3000 has moved to {moved} on the hub\n"
    assert cli("verify", "--offline").status == 0
    assert cli("pull", MODEL).out == f"pythia-14m-int8:{commit} was there already\n"
    assert cli("lock").out == f"{MODEL} is {moved}, was {commit}\n"
    with pytest.raises(CheckpointError, match=rf"{moved}, which the lock pins, is not in the"):
        load_checkpoint(MODEL)
    assert cli("verify").out == f"{MODEL} ({moved}): is not in the store\n"
    cli("pull", MODEL)
    assert cli("verify").status == 0
    assert load_checkpoint(MODEL).commit == moved


def test_a_changed_byte(cli: Cli, commit: str) -> None:
    cli("pull", MODEL)
    weights = load_checkpoint(MODEL).path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    status, out, _ = cli("verify", "--offline")
    assert status == 1
    assert out.startswith(f"pythia-14m-int8:{commit}: model.safetensors has sha256 ")
    with pytest.raises(CheckpointError, match=r"will not be served: .*: model\.safetensors has"):
        load_checkpoint(MODEL)


def test_a_lock_with_another_hash_is_not_served(cli: Cli, commit: str) -> None:
    cli("pull", MODEL)
    cli("lock", MODEL)
    lock = Path("pythia.lock")
    pinned = Lock.read().models[MODEL].files["tokenizer.json"].sha256
    lock.write_text(lock.read_text().replace(pinned, "a" * 64))
    assert "tokenizer.json has sha256" in cli("verify", "--offline").out
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has sha256"):
        load_checkpoint(MODEL)
    assert "not what the lock pins" in cli("pull", MODEL).err


def test_offline(cli: Cli, commit: str, monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> None:
    cli("pull", MODEL)
    cli("lock", MODEL)
    hub.seen.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli("verify").status == 0
    assert cli("lock").out == f"{MODEL} is {commit}\n"
    assert load_checkpoint(MODEL).commit == commit
    status, _, err = cli("pull", "pythia-14m")
    assert (status, "HF_HUB_OFFLINE" in err) == (1, True)
    assert hub.seen == []


def test_errors_are_one_line(cli: Cli, commit: str) -> None:
    assert cli("pull", "pythia-15m").status == 2
    assert cli("pull", "pythia-14m@step4000").err.endswith(
        "has no revision 'step4000' on the hub\n"
    )
    assert cli("lock") == (2, "", "error: pythia.lock pins no model yet; name one\n")
    Path("pythia.lock").write_text("[")
    status, out, err = cli("verify")
    assert (status, out, err.count("\n")) == (1, "", 1)


def test_a_home_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """Nothing can be made below a file, for root as well."""
    (tmp_path / "file").write_text("no directory")
    place = tmp_path / "file" / "home"
    run = commands(
        ["verify", "--offline"],
        ["generate", "-m", MODEL, "hi"],
        cwd=tmp_path,
        env=os.environ | {"BENTOML_HOME": str(place), "HF_HUB_OFFLINE": "1"},
    )
    assert run.stderr == f"error: {place}: Not a directory\n1\n" * 2


def test_a_store_that_cannot_be_written_is_one_line(
    cli: Cli, commit: str, bento_home: Path
) -> None:
    (bento_home / "pythia-bento").write_text("no directory")
    status, _, err = cli("pull", MODEL)
    assert (status, err.count("\n"), "cannot be stored" in err) == (1, 1, True)


@pytest.mark.parametrize("damage", ["dangling", "loop", "directory"])
def test_a_file_of_the_store_that_is_none_is_one_line(cli: Cli, commit: str, damage: str) -> None:
    cli("pull", MODEL)
    path = load_checkpoint(MODEL).path / "config.json"
    path.unlink()
    if damage == "directory":
        path.mkdir()
    else:
        path.symlink_to("config.json" if damage == "loop" else "/no/such/file")
    line = f"pythia-14m-int8:{commit}: config.json is missing\n"
    assert cli("verify", "--offline") == (1, line, "")
    status, _, err = cli("generate", "-m", MODEL, "hi")
    assert (status, err.count("\n")) == (1, 1)
    assert cli("pull", MODEL).status == 0
    assert cli("verify", "--offline").status == 0


@pytest.mark.parametrize(
    "text", ["\0", "!!python/name:os.system", "a: &a [*a]", "[", "metadata: 5"]
)
def test_a_model_yaml_that_makes_no_sense_is_one_line(cli: Cli, commit: str, text: str) -> None:
    cli("pull", MODEL)
    (load_checkpoint(MODEL).path / "model.yaml").write_text(text)
    for command in (("verify", "--offline"), ("generate", "-m", MODEL, "hi"), ("pull", MODEL)):
        status, _, err = cli(*command)
        assert (status, err.count("\n"), "`bentoml models delete" in err) == (1, 1, True)


@pytest.mark.parametrize("name", [MODEL, "mine/model"])
def test_a_directory_of_a_models_name_is_not_the_model(
    cli: Cli, commit: str, sources: Path, name: str
) -> None:
    shutil.copytree(sources / "a", name)
    status, _, err = cli("generate", "-m", name, "hi")
    assert status == 1 and err.endswith(f"; write ./{name} for the directory of that name\n")
    assert load_checkpoint(f"./{name}").commit is None
    if name == MODEL:
        cli("pull", MODEL)
        assert load_checkpoint(name).commit == commit


def test_quantize_writes_a_directory_that_loads(cli: Cli, sources: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8"
    assert cli("quantize", str(sources / "a"), str(target)).status == 0
    assert load_checkpoint(str(target)).quantization == "int8 by row, as stored"
    assert "exists already" in cli("quantize", str(sources / "a"), str(target)).err


def test_environment_of_the_hubs_client_is_honoured(
    commit: str, hub: HubServer, tmp_path: Path
) -> None:
    hub.tokens[REPO] = "hf_secret"
    home = tmp_path / "elsewhere"
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_TOKEN": "hf_secret",
        "BENTOML_HOME": str(home / "bentoml"),
    }
    first = commands(["pull", MODEL], env=environment, cwd=tmp_path)
    assert first.stdout == f"pythia-14m-int8:{commit}\n", first.stderr
    assert (home / "bentoml" / "models" / "pythia-14m-int8" / commit / "model.yaml").is_file()
    assert (home / "hf").is_dir()
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    then = commands(["pull", MODEL], ["pull", "pythia-14m"], env=offline, cwd=tmp_path)
    assert then.stdout == f"pythia-14m-int8:{commit} was there already\n"
    assert "HF_HUB_OFFLINE" in then.stderr
