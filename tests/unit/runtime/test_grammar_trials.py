"""What could keep the server busy is found out in a process that is ended."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading

import pytest

from pythia_bento.engine.grammars import Constraint
from pythia_bento.errors import InvalidRequest, Overloaded
from pythia_bento.runtime import grammar_trials
from pythia_bento.runtime.grammar_trials import trial
from tests.amounts import rest_long
from tests.constraints import CASES
from tests.unit.engine.toy import TOKENIZER
from tests.unit.runtime.toy_runner import toy_runner

ENDLESS = json.dumps({"type": "integer", "multipleOf": 9999991})


def regex(text: str) -> Constraint:
    return Constraint("guided_regex", "regex", text)


def test_what_can_be_compiled_passes() -> None:
    assert trial(CASES["json"].constraint) == ""


def test_the_reason_is_the_librarys() -> None:
    assert trial(regex("(")).startswith("guided_regex cannot be followed: ")


def test_what_does_not_end_is_ended() -> None:
    reason = trial(Constraint("guided_json", "json", ENDLESS))
    assert reason == ("guided_json cannot be followed: to compile it takes more than 2 s or 1 GiB")


def test_a_process_that_dies_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trials, "_CODE", "import os; os.abort()")
    assert "takes more than" in trial(regex("a"))


def test_a_process_that_has_no_time_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trials, "WALL_SECONDS", 0.01)
    monkeypatch.setattr(grammar_trials, "_CODE", "import sys; sys.stdin.read(); input()")
    assert "takes more than" in trial(regex("a"))


def test_the_process_has_limits_of_its_own() -> None:
    code = (
        'import resource as r, io, sys; sys.stdin = io.StringIO(\'["f", "regex", "a"]\');'
        "from pythia_bento.runtime.grammar_trial_main import main; main();"
        "print([r.getrlimit(i)[0] for i in (r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_CORE)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == '""[2, 1073741824, 0]\n'


async def test_each_is_tried_once_and_what_is_known_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []
    release = threading.Event()

    def slow(constraint: Constraint) -> str:
        tried.append(constraint.text)
        if constraint.text.startswith("slow"):
            release.wait()
        return "no" if constraint.text == "bad" else ""

    monkeypatch.setattr(grammar_trials, "trial", slow)
    monkeypatch.setattr(grammar_trials, "MOST_WAITING", 3)
    with toy_runner() as runner:
        for _ in range(2):
            await runner.make_ready(regex("a"))
            with pytest.raises(InvalidRequest, match=r"^no$"):
                await runner.make_ready(regex("bad"))
        assert tried == ["a", "bad"]
        waiting = [asyncio.create_task(runner.make_ready(regex(f"slow{i}"))) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="guided_regex is to be compiled after 3 others"):
            await runner.make_ready(regex("b"))
        await runner.make_ready(regex("a"))
        release.set()
        await asyncio.gather(*waiting)
        await runner.make_ready(regex("b"))


async def test_outcomes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(grammar_trials, "trial", lambda asked: tried.append(asked.text) or "")
    monkeypatch.setattr(grammar_trials, "MOST_KNOWN", 2)
    with toy_runner() as runner:
        for text in ("a", "b", "c", "c", "a"):
            await runner.make_ready(regex(text))
    assert tried == ["a", "b", "c", "a"]


@pytest.mark.parametrize("seed", rest_long([1], [2, 3, 4]))
def test_texts_at_random_are_compiled_or_refused(seed: int) -> None:
    """In this process: what kills it would be found here."""
    from pythia_bento.engine.guides import grammars_of

    draw, kinds = random.Random(seed), ("regex", "grammar", "json")
    parts = [
        *'(){}[]|*+?.,:"\\/-^$ ',
        "start: ",
        "root ::= ",
        "a",
        "é",
        "{1,9}",
        '{"type":',
        "%json",
    ]
    found = 0
    for _ in range(150):
        text = "".join(draw.choices(parts, k=draw.randint(1, 12)))
        try:
            grammars_of(TOKENIZER).get(Constraint("f", draw.choice(kinds), text))  # type: ignore[arg-type]
            found += 1
        except InvalidRequest as error:
            assert error.message.startswith("f cannot be followed: "), text
            assert error.message.isprintable() and len(error.message) < 300
    assert found > 5
