"""``Models``, and ``model`` in requests over gRPC, of many checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from pythia_bento.errors import CheckpointError
from pythia_bento.handlers.score import score
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from tests.bentoml_stub import bentoml_stub
from tests.unit.runtime.toy_shelf import BROKEN, COLD, DEFAULT, STEPS, toy_shelf, toy_step
from tests.unit.server.grpc.conftest import asked, open_stub, serving
from tests.unit.server.grpc.test_bentoml_v1 import call

UNKNOWN, OTHER = "toy@step4", "other@step1"
SERVED = [f"toy@step{step}" for step in STEPS if f"toy@step{step}" != BROKEN]


@pytest.fixture
async def runner() -> AsyncIterator[PythiaRunner]:
    """Instead of the one of a single model."""
    with toy_shelf(fault=CheckpointError("a.bin was changed")) as runner:
        yield runner


def to(model: str) -> pb.GenerateRequest:
    request = asked([5, 6, 7], max_tokens=8, logprobs=2, seed=1, prompt_logprobs=1)
    request.model = model
    return request


async def generated(stub: PythiaStub, request: pb.GenerateRequest) -> tuple[Any, ...]:
    """All that does not depend on when it was computed."""
    messages = [message async for message in stub.Generate(request)]
    summary = messages[-1].summary
    deltas = [delta for message in messages for delta in message.deltas]
    tokens = [token for message in messages for token in message.prompt_tokens]
    return summary.model, summary.fingerprint, summary.seed, joined(deltas), tokens


def joined(deltas: list[Any]) -> tuple[Any, ...]:
    text = "".join(delta.text for delta in deltas)
    return text, [t for delta in deltas for t in delta.tokens], deltas[-1].finish_reason


async def test_each_step_answers_as_if_it_were_alone(stub: PythiaStub) -> None:
    answers = await asyncio.gather(*(generated(stub, to(model)) for model in SERVED * 2))
    for model, answer in zip(SERVED * 2, answers, strict=True):
        assert answer[0] == model
        with toy_step(int(model.removeprefix("toy@step"))) as alone:
            async with serving(alone) as server, open_stub(server.port) as other:
                assert answer == await generated(other, to(""))
    assert len({answer[3][0] for answer in answers}) == len(SERVED)


async def test_scores_of_many_in_one_request(stub: PythiaStub, runner: PythiaRunner) -> None:
    models = ["", COLD, UNKNOWN, DEFAULT, BROKEN]
    items = [pb.ScoreItem(prompt={"tokens": {"ids": [5, 6, 7]}}, model=model) for model in models]
    response = await stub.Score(pb.ScoreRequest(items=items, model="toy@step2"))
    bodies = [{"prompt": [5, 6, 7]} | ({"model": model} if model else {}) for model in models]
    wanted: list[Any] = await score(runner, bodies, "toy@step2")
    for found, expected in zip(response.results, wanted, strict=True):
        if "error" in expected:
            assert found.error.code == expected["error"]["code"]
        else:
            assert found.score.logprob == expected["logprob"]
    assert [result.WhichOneof("result") for result in response.results] == [
        *("score", "score", "error", "score", "error"),
    ]


Ask = Callable[[PythiaStub, str], Awaitable[Any]]


async def _generate(stub: PythiaStub, model: str) -> Any:
    return [message async for message in stub.Generate(to(model))]


ASK: dict[str, Ask] = {
    "Generate": _generate,
    "Score": lambda stub, model: stub.Score(pb.ScoreRequest(model=model)),
    "Info": lambda stub, model: stub.Info(pb.InfoRequest(model=model)),
    "Tokenize": lambda stub, model: stub.Tokenize(pb.TokenizeRequest(text="a", model=model)),
    "Detokenize": lambda stub, model: stub.Detokenize(
        pb.DetokenizeRequest(ids=[5], model=model),
    ),
}


@pytest.mark.parametrize("method", ASK)
async def test_models_that_are_not_served(stub: PythiaStub, method: str) -> None:
    for model, code in ((UNKNOWN, "NOT_FOUND"), (OTHER, "INVALID_ARGUMENT")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ASK[method](stub, model)
        assert caught.value.code().name == code
        assert str(caught.value.details()).startswith(model)
    assert await ASK[method](stub, COLD)


async def test_a_checkpoint_that_cannot_be_loaded(stub: PythiaStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _generate(stub, BROKEN)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    [state] = (await stub.Models(pb.ModelsRequest(pattern=BROKEN))).models
    assert (state.state, state.error) == (pb.ModelState.FAILED, "a.bin was changed")


async def test_info_of_each(stub: PythiaStub, runner: PythiaRunner) -> None:
    for name in (DEFAULT, COLD, f"owner/{COLD}"):
        info = await stub.Info(pb.InfoRequest(model=name))
        served = await runner.served(name)
        assert (info.model, info.fingerprint) == (served.info.id, served.info.fingerprint)
    assert (await stub.Info(pb.InfoRequest())).model == DEFAULT


async def test_models(stub: PythiaStub) -> None:
    assert await _generate(stub, COLD)
    models = (await stub.Models(pb.ModelsRequest())).models
    assert [state.model for state in models] == [
        *(DEFAULT, COLD, "toy@step2", "toy@step5", "toy@step8", BROKEN),
    ]
    first, second, third = models[:3]
    assert (first.state, second.state, third.state) == (
        *(pb.ModelState.DEVICE, pb.ModelState.DEVICE, pb.ModelState.DISK),
    )
    assert [state.pinned for state in (first, second)] == [True, False]
    assert (second.step, second.weights, second.nbytes) == (1, "w1", 1001)
    assert list(second.aliases) == [f"owner/{COLD}"]
    assert second.last_used > third.last_used == 0
    assert second.fingerprint == (await stub.Info(pb.InfoRequest(model=COLD))).fingerprint


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [("*step1", [1]), ("toy@step1*", [1, 13]), ("owner/*?5", [5]), ("toy", []), ("*", None)],
)
async def test_patterns(stub: PythiaStub, pattern: str, steps: list[int] | None) -> None:
    models = (await stub.Models(pb.ModelsRequest(pattern=pattern))).models
    assert [state.step for state in models] == ([3, 1, 2, 5, 8, 13] if steps is None else steps)


@pytest.mark.parametrize("pattern", ["a" * 257, "[a-z]", "toy\n", "*" * 300])
async def test_patterns_that_are_refused(stub: PythiaStub, pattern: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Models(pb.ModelsRequest(pattern=pattern))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 256 characters" in str(caught.value.details())


async def test_bentomls_stubs_name_a_model_too(
    channel: grpc.aio.Channel, runner: PythiaRunner
) -> None:
    with bentoml_stub() as theirs:
        body = {"prompt": [5, 6], "max_tokens": 4, "seed": 1, "model": COLD}
        assert (await call(channel, theirs, "generate", body))["model"] == COLD
        items = [{"prompt": [5, 6]}, {"prompt": [5, 6], "model": DEFAULT}]
        answer = await call(channel, theirs, "score", {"items": items, "model": COLD})
        assert answer == await score(runner, items, COLD)
