"""The command line, run in this process on the bundled checkpoint; imports in a fresh one."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pythia_bento import __version__, catalog
from pythia_bento.cli import main
from pythia_bento.server.access.control import AccessControl
from pythia_bento.settings import load_settings

PROMPT = "Once upon a time"


class Result(NamedTuple):
    status: Any
    out: str
    err: str


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Result:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        return Result(caught.value.code, *self._capsys.readouterr())

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.status == 0, result.err
        return json.loads(result.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"pythia-bento {__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_the_commands(cli: Cli, arguments: tuple[str, ...]) -> None:
    status, out, err = cli(*arguments)
    assert (status, err) == (0, "")
    for command in ("list", "generate", "score"):
        assert f"\n  {command} " in out


def test_list_shows_every_model_but_the_seeds(cli: Cli) -> None:
    status, out, _ = cli("list")
    assert status == 0
    shown = [line.split()[0] for line in out.splitlines() if line.startswith(" pythia-")]
    assert shown == [name for name in catalog.MODELS if "-seed" not in name]
    assert "1,011,781,632" in out


def test_help_and_list_fit_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    monkeypatch.setenv("COLUMNS", "80")
    helped, listed = (re.sub(r"\x1b\[[\d;]*m", "", cli(name).out) for name in ("--help", "list"))
    for out in (helped, listed.partition("Training seeds")[0]):
        assert max(map(len, out.splitlines())) <= 80
    assert "..." not in helped.partition("Commands:")[2]
    assert all(name in listed for name in catalog.MODELS if "-seed" not in name)


def test_list_as_json_is_the_catalog_and_the_bundled_checkpoint(cli: Cli) -> None:
    first, *rest = cli.json("list")
    assert first["name"] == "bundled"
    assert first["revisions"][:2] == ["main", "step0"]
    assert [model["name"] for model in rest] == list(catalog.MODELS)
    counts = {model["name"]: len(model["revisions"]) for model in rest}
    assert counts == {name: 1 + len(model.steps) for name, model in catalog.MODELS.items()}
    assert (counts["pythia-1b"], counts["pythia-1b-v0"]) == (155, 144)
    for model in rest:
        for revision in model["revisions"]:
            catalog.parse(f"{model['name']}@{revision}")


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["generate", "--help"]])
def test_what_needs_no_model_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from pythia_bento.cli import main\n"
        f"main({arguments})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "False\n")


def test_generate_prints_the_text_that_json_has(cli: Cli) -> None:
    options = ("--max-tokens", "12", "--temperature", "0.8", "--seed", "7")
    plain = cli("generate", PROMPT, *options)
    assert plain.status == 0
    answer = cli.json("generate", PROMPT, *options)
    assert answer["model"].startswith("bundled")
    [output] = answer["outputs"]
    assert plain.out == output["text"] + "\n"
    assert len(output["token_ids"]) == 12
    assert output["finish_reason"] == "length"


def test_generate_several_with_a_stop_string(cli: Cli) -> None:
    result = cli("generate", PROMPT, "-n", "2", "--seed", "0", "--stop", ".", "--stop", "!")
    assert result.status == 0
    lines = result.out.splitlines()
    assert [line[:4] for line in lines] == ["[0] ", "[1] "]
    assert lines[0][4:] != lines[1][4:]
    assert not any(mark in result.out for mark in ".!")


def test_a_seed_that_was_drawn_is_said_and_repeats(cli: Cli) -> None:
    drawn = cli("generate", PROMPT, "--max-tokens", "20")
    found = re.fullmatch(r"seed (\d+): with --seed \1 the same again", drawn.err.splitlines()[-1])
    assert found
    again = cli("generate", PROMPT, "--max-tokens", "20", "--seed", found[1])
    assert again.out == drawn.out and "seed" not in again.err
    assert "seed" not in cli("generate", PROMPT, "--max-tokens", "1", "--temperature", "0").err
    several = cli("generate", PROMPT, "-n", "2", "--max-tokens", "8")
    found = re.search(r"--seed (\d+) ", several.err)
    assert found
    options = ("-n", "2", "--max-tokens", "8", "--seed", found[1])
    assert cli("generate", PROMPT, *options).out == several.out


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_of_terminals(cli: Cli, monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    options = ("--max-tokens", "20", "--seed", "3", "--temperature", "2")
    plain = [cli("generate", PROMPT, *options).out, cli("score", "Once upon a time there was").out]
    assert not any("\x1b" in out for out in plain)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if it were one
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    shown = [cli("generate", PROMPT, *options).out, cli("score", "Once upon a time there was").out]
    assert [re.sub(r"\x1b\[[\d;]*m", "", out) for out in shown] == plain
    for out in shown:
        coloured = re.findall(r"\x1b\[(?:31|33|38;5;208)m", out)
        assert bool(coloured) is not bool(no_color)


def test_what_no_model_allows_is_refused_before_one_is_loaded(cli: Cli, tmp_path: Path) -> None:
    nothing = ("-m", str(tmp_path))  # which cannot be loaded
    for arguments, word in (
        (("generate", PROMPT, "--top-p", "3"), "top_p"),
        (("generate", PROMPT, "--max-tokens", "-1"), "max_tokens"),
        (("generate", "", "--max-tokens", "1"), "prompt is empty"),
        (("score", "\ud800"), "surrogate"),
        (("score", ""), "text is empty"),
    ):
        status, out, err = cli(*arguments, *nothing)
        assert (status, out) == (2, "") and word in err
    assert "config.json" in cli("score", PROMPT, *nothing).err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("sc", {"score"}),
        ("score -m pythia-6.9b-d", {"pythia-6.9b-deduped"}),
        ("serve bun", {"bundled"}),
    ],
)
def test_shells_complete_commands_and_models(words: str, offered: set[str]) -> None:
    environment = {"_PYTHIA_BENTO_COMPLETE": "bash_complete", "COMP_WORDS": f"pythia-bento {words}"}
    environment["COMP_CWORD"] = str(len(words.split()))
    done = subprocess.run(
        [sys.executable, "-c", "from pythia_bento.cli import main; main()"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    found = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert offered <= found and done.stderr == ""
    assert all(name.startswith(words.split()[-1]) for name in found)


def test_score_table_and_json_agree(cli: Cli) -> None:
    result = cli.json("score", PROMPT)
    logprobs = [token["logprob"] for token in result["tokens"]]
    assert result["num_tokens"] == len(logprobs) == 3
    assert result["logprob"] == pytest.approx(sum(logprobs))
    assert result["perplexity"] == pytest.approx(math.exp(-sum(logprobs) / 3))
    status, out, _ = cli("score", PROMPT)
    assert status == 0
    for token in result["tokens"]:
        assert repr(token["text"]) in out
        assert f"{token['logprob']:.4f}" in out
    assert f"perplexity {result['perplexity']:.4f}" in out


def test_dash_reads_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cli.json("score", PROMPT)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PROMPT.encode())))
    assert cli.json("score", "-") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc\xff")))
    assert cli("score", "-") == (
        2,
        "",
        "error: text is not UTF-8: invalid start byte at byte 3\n",
    )


def test_model_comes_from_the_environment_and_the_option_wins(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("generate", PROMPT, "--max-tokens", "1", "--seed", "0", "-m")
    untrained = cli.json(*options, "bundled@step0")
    monkeypatch.setenv("PYTHIA_MODEL", "bundled@step0")
    assert cli.json(*options[:-1]) == untrained
    assert untrained["model"] == "bundled@step0"
    assert cli.json(*options, "bundled")["model"] != "bundled@step0"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nope"], 2, ["nope"]),
        (["generate"], 2, ["PROMPT"]),
        (["list", "--nope"], 2, ["--nope"]),
        (["generate", PROMPT, "--max-tokens", "many"], 2, ["--max-tokens", "many"]),
        (["generate", PROMPT, "--top-p", "nan"], 2, ["top_p"]),
        (["generate", PROMPT, "--stop", "", "--max-tokens", "1"], 2, ["stop"]),
        (["generate", PROMPT, "--top-p", "3"], 2, ["top_p", "1"]),
        (["generate", PROMPT, "-n", "0"], 2, ["n "]),
        (["generate", PROMPT, "--max-tokens", "100000"], 2, ["max_tokens", "context"]),
        (["generate", PROMPT, "-m", "bundled@step7"], 2, ["step7", "step0"]),
        (["generate", PROMPT, "-m", ""], 2, ["model"]),
        (["score", "a"], 2, ["one token"]),
        (["score", ""], 2, ["empty"]),
        (["score", "\ud800"], 2, ["surrogate"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    cli: Cli, arguments: list[str], status: int, words: list[str]
) -> None:
    result = cli(*arguments)
    assert result.status == status
    assert result.out == ""
    *_, last = result.err.splitlines()
    assert last.startswith("error: ")
    for word in words:
        assert word in last


def test_a_damaged_checkpoint_is_status_1(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    status, out, err = cli("generate", PROMPT, "--model", str(tmp_path))
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert str(tmp_path) in err


def test_a_bad_setting_is_status_2(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_DEVICE", "abacus")
    status, out, err = cli("generate", PROMPT)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and "PYTHIA_DEVICE" in err


def test_reader_that_leaves_early_is_no_traceback() -> None:
    code = "from pythia_bento.cli import main; main(['list', '--json'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)  # depends on the version of click


def test_key_makes_an_entry_that_lets_its_key_in(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cli.json("key", "alice")
    monkeypatch.setenv("PYTHIA_API_KEYS", made["entry"])
    with AccessControl.from_settings(load_settings()).enter(f"Bearer {made['key']}") as caller:
        assert caller == "alice"
    status, out, err = cli("key")
    assert (status, err) == (0, "")
    assert made["key"] not in out and len(re.findall(r"sha256:[0-9a-f]{64}$", out)) == 1
    status, out, err = cli("key", "a b")
    assert (status, out) == (2, "")
    assert err.startswith("error: the name of a key must be 1 to 64 letters")
