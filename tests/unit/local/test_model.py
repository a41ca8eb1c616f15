"""A model in this process beside a server's answers: the same results, the same errors."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

import pythia_bento
from pythia_bento.client import ScoreItem
from pythia_bento.errors import EngineUnavailable, InvalidRequest, ModelNotFound
from pythia_bento.handlers.generate import generate
from pythia_bento.handlers.score import score
from pythia_bento.local import model as module
from pythia_bento.local.model import Model
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.types import Score
from pythia_bento.settings import SettingsError
from tests.unit.runtime.toy_runner import settled, toy_runner
from tests.unit.runtime.toy_shelf import COLD, DEFAULT, toy_shelf, toy_step


@pytest.fixture
def lm() -> Iterator[Model]:
    with toy_runner() as runner:
        loaded = Model(runner)
        yield loaded
        settled(runner)
        loaded.close()
        loaded.close()


async def test_answers_are_a_servers_inside_a_running_event_loop(lm: Model) -> None:
    options = {"max_tokens": 9, "seed": 7, "n": 2, "logprobs": 2}
    here = lm.generate("the end", **options)
    body = parse(GenerateRequest, {"prompt": "the end", **options})
    there = await generate(lm._runner, body)
    assert here.summary.fingerprint == there["fingerprint"]
    assert here.summary.seed == there["seed"] == 7
    for output, expected in zip(here.outputs, there["outputs"], strict=True):
        assert output.text == expected["text"]
        assert list(output.token_ids) == expected["token_ids"]
        assert [t.logprob for t in output.tokens] == [t["logprob"] for t in expected["tokens"]]


def test_scores_are_a_servers_whatever_the_slice(
    lm: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["the end", [5, 6, 7], "a"]
    items = [*texts, ScoreItem("the", " end", logprobs=1), ""]
    whole = lm.score(items)
    assert "scoring" not in capsys.readouterr().err
    monkeypatch.setattr(module, "SLICE", 2)
    parts = lm.score(iter(items), progress=True)
    assert "scoring texts" in capsys.readouterr().err
    assert parts[:-1] == whole[:-1]
    assert all(isinstance(one, Score) for one in whole[:-1])
    assert isinstance(whole[-1], InvalidRequest) and isinstance(parts[-1], InvalidRequest)
    there = asyncio.run(score(lm._runner, [{"prompt": text} for text in texts]))
    assert [one.logprob for one in whole[:3]] == [one["logprob"] for one in there]


def test_a_stream_that_is_left_ends_its_request(lm: Model) -> None:
    stream = lm.stream("the end", max_tokens=50, ignore_eos=True)
    assert next(stream).deltas
    stream.close()
    settled(lm._runner)


def test_text_becomes_ids_and_comes_back(lm: Model) -> None:
    assert lm.detokenize(lm.tokenize("the end")) == "the end"
    assert lm.info().model == "toy@step3"
    assert lm.info().limits.max_batch_size == lm._runner.settings.batch_size("cpu")


def test_calls_may_name_others_of_the_shelf() -> None:
    with toy_shelf() as runner:
        many = Model(runner)
        states = {state.model: state for state in many.models()}
        assert (states[DEFAULT].state, states[COLD].state) == ("device", "disk")
        assert (states[COLD].step, states[COLD].aliases) == (1, (f"owner/{COLD}",))
        answer = many.generate("the end", model=COLD, seed=1)
        assert (answer.summary.model, many.info(COLD).model) == (COLD, COLD)
        items = [ScoreItem("the end"), ScoreItem("the end", model=DEFAULT), ScoreItem("the end")]
        first, other, last = many.score(items, model=COLD)
        assert first == last != other
        assert [other] == many.score(["the end"])
        assert many.detokenize(many.tokenize("the end", model=COLD), model=COLD) == "the end"
        for ask in (many.info, lambda name: many.generate("a", model=name)):
            with pytest.raises(ModelNotFound):
                ask("toy@step4")
        settled(runner)
        many.close()
    with toy_step(1) as alone:
        one = Model(alone)
        assert one.generate("the end", seed=1).outputs == answer.outputs
        assert one.score(["the end"]) == [first]
        one.close()


def test_a_closed_model_says_so() -> None:
    with toy_runner() as runner:
        lm = Model(runner)
        stream = lm.stream("the end", max_tokens=5)
        begun = lm.stream("the end", max_tokens=50, ignore_eos=True)
        next(begun)
        lm.close()
        for call in (lambda: lm.generate("a"), lambda: lm.score(["a b"]), lambda: next(stream)):
            with pytest.raises(EngineUnavailable, match="the model was closed"):
                call()
        begun.close()


def test_bad_options_are_refused_with_their_names(lm: Model) -> None:
    with pytest.raises(InvalidRequest, match="temperature"):
        lm.generate("a", temperature=-1)
    with pytest.raises(TypeError, match="beams"):
        lm.generate("a", beams=2)  # type: ignore[call-arg]


def test_what_cannot_be_loaded_is_said_at_once() -> None:
    with pytest.raises(SettingsError, match="max_batch_size"):
        pythia_bento.load(max_batch_size=0)
    with pytest.raises(ModelNotFound):
        pythia_bento.load("pythia-71m", progress=False)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        pythia_bento.lode  # noqa: B018


def test_the_package_alone_imports_nothing_heavy() -> None:
    code = (
        "import pythia_bento, sys; print(sorted({'torch', 'bentoml', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
