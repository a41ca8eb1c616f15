"""A model in this process beside a server's answers: the same results, the same errors."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pythia_bento
from pythia_bento.client import ScoreItem
from pythia_bento.errors import EngineUnavailable, InvalidRequest, ModelNotFound
from pythia_bento.handlers.generate import generate
from pythia_bento.handlers.inside import activations
from pythia_bento.handlers.score import score
from pythia_bento.local import model as module
from pythia_bento.local.model import Model
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.protocol.inside import ActivationsRequest
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


CAPTURE = ["blocks.*.hook_resid_post", {"site": "hook_embed", "positions": "last"}]


def test_activations_are_a_servers(lm: Model) -> None:
    logits = {"tokens": [5], "positions": [-1]}
    options: dict[str, Any] = {"capture": CAPTURE, "logits": logits, "max_tokens": 2, "seed": 3}
    found = lm.activations(["the end", [5, 6, 7]], **options)
    fields = {**options, "prompts": ["the end", [5, 6, 7]]}
    fields["capture"] = [{"site": CAPTURE[0]}, CAPTURE[1]]
    body = parse(ActivationsRequest, fields)
    answer = lm._loop.run(activations(lm._runner, body))
    there = {tensor.name: np.array(tensor.values) for tensor in answer.tensors}
    answer.close()
    assert found.model == answer.model and found.fingerprint == answer.system_fingerprint
    for prompt, run in enumerate(found):
        assert set(run) == {"blocks.0.hook_resid_post", "hook_embed", "logits"}
        for name, array in run.items():
            assert array.tobytes() == there[f"{prompt}:{name}"].tobytes()
        assert run.completion is not None and len(run.completion.token_ids) == 2
        assert list(run.token_ids) == there[f"{prompt}:token_ids"].tolist()
    assert found[1].tokens[:3] == tuple(lm.detokenize([id]) for id in (5, 6, 7))
    alone = lm.activations([5, 6, 7], **options)[0]
    assert all(alone[name].tobytes() == found[1][name].tobytes() for name in alone)


def test_interventions_and_patches(lm: Model) -> None:
    site = "blocks.0.hook_resid_post"
    other = lm.activations([9, 9, 9], capture=site)[0][site]
    change = {"site": site, "op": "set", "vector": other, "positions": "prompt"}
    [run] = lm.activations([5, 6, 7], capture=site, interventions=[change])
    assert run[site].tobytes() == other.tobytes()
    plain = lm.generate([5, 6, 7], max_tokens=1, temperature=0)
    bias = {**change, "vector": other[-1], "positions": [-1]}
    changed = lm.generate([5, 6, 7], max_tokens=1, temperature=0, interventions=[bias])
    there = lm.generate([9, 9, 9], max_tokens=1, temperature=0)
    assert changed.outputs == there.outputs != plain.outputs
    assert changed.summary.fingerprint.startswith(f"{plain.summary.fingerprint}+")
    grid = lm.patch([9, 9, 9], [5, 6, 7], site, metric=("logprob", 11))
    assert grid.recovered[0, 2] == 1
    assert (grid.layers, grid.positions) == ((0,), (0, 1, 2))


def test_activations_that_are_refused(lm: Model) -> None:
    with pytest.raises(InvalidRequest, match="layers are 0 to 0"):
        lm.activations("a", capture="blocks.1.hook_resid_post")
    with pytest.raises(InvalidRequest, match="has shape"):
        change = {"site": "hook_embed", "op": "add", "vector": np.ones(3)}
        lm.activations("a", capture="hook_embed", interventions=[change])
    with pytest.raises(TypeError, match="beams"):
        lm.activations("a", capture="hook_embed", beams=2)  # type: ignore[call-arg]
    with pytest.raises(ModelNotFound):
        lm.patch("a", "b", "blocks.0.hook_resid_post", metric=("logprob", 5), model="tooy")


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
