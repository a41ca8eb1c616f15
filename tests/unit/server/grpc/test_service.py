from __future__ import annotations

from typing import Any

import grpc
import pytest

from pythia_bento.engine.params import score_request
from pythia_bento.handlers import score as scoring
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.grpc import messages as messages_module
from tests.unit.engine.toy import POISON
from tests.unit.runtime.toy_runner import INFO, ask, toy_runner
from tests.unit.server.grpc.conftest import asked, open_stub, serving


async def test_deltas_join_to_the_engines_answer(stub: PythiaStub, runner: PythiaRunner) -> None:
    options = {"max_tokens": 12, "n": 3, "temperature": 0.7, "seed": 5, "logprobs": 2}
    [expected] = await runner.complete(
        [ask((5, 6, 7), n=3, max_tokens=12, temperature=0.7, seed=5, logprobs=2)]
    )
    request = asked([5, 6, 7], **options, ignore_eos=True)
    messages = [message async for message in stub.Generate(request)]
    for index, answer in enumerate(expected):
        deltas = [d for message in messages for d in message.deltas if d.index == index]
        assert "".join(delta.text for delta in deltas) == answer.text
        assert [id for delta in deltas for id in delta.token_ids] == answer.token_ids
        assert [
            (token.id, token.logprob, [(top.id, top.logprob) for top in token.top])
            for delta in deltas
            for token in delta.tokens
        ] == [(lp.token_id, lp.logprob, list(lp.top)) for lp in answer.logprobs or ()]
        assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [
            pb.FINISH_REASON_LENGTH
        ]


async def test_the_last_message_alone_has_a_summary(stub: PythiaStub) -> None:
    messages = [m async for m in stub.Generate(asked("the end", max_tokens=5, ignore_eos=True))]
    assert [message.HasField("summary") for message in messages] == [False] * (
        len(messages) - 1
    ) + [True]
    summary = messages[-1].summary
    assert (summary.model, summary.fingerprint) == (INFO.id, INFO.fingerprint)
    assert summary.num_prompt_tokens > 0 and summary.num_completion_tokens == 5
    times = summary.timings
    assert min(times.queue, times.prefill, times.decode) >= 0
    assert times.queue + times.prefill + times.decode == pytest.approx(times.total)


async def test_never_more_messages_than_steps() -> None:
    with toy_runner() as runner:
        async with serving(runner) as server, open_stub(server.port) as stub:
            steps = runner.stats().steps
            request = asked("a", max_tokens=30, n=8, ignore_eos=True)
            messages = [message async for message in stub.Generate(request)]
            assert 1 <= len(messages) <= runner.stats().steps - steps
            assert sum(len(d.token_ids) for m in messages for d in m.deltas) == 8 * 30


async def test_what_stopped_it(stub: PythiaStub, runner: PythiaRunner) -> None:
    plain = [m async for m in stub.Generate(asked([5, 6], max_tokens=20, ignore_eos=True))]
    ids = [id for message in plain for delta in message.deltas for id in delta.token_ids]
    stopped = asked([5, 6], max_tokens=20, ignore_eos=True, stop_token_ids=[ids[3]])
    *_, last = [message async for message in stub.Generate(stopped)]
    assert last.deltas[-1].finish_reason == pb.FINISH_REASON_STOP
    assert last.deltas[-1].stop_token_id == ids[3]
    text = "".join(delta.text for message in plain for delta in message.deltas)
    words = asked([5, 6], max_tokens=20, ignore_eos=True, stop=[text[4:6]])
    *_, last = [message async for message in stub.Generate(words)]
    assert last.deltas[-1].stop_string == text[4:6]


async def test_the_best_come_in_one_message(stub: PythiaStub) -> None:
    options = {"max_tokens": 6, "temperature": 2.0, "ignore_eos": True, "logprobs": 0}
    everything = [m async for m in stub.Generate(asked("all", n=6, **options))]
    sums: dict[int, float] = dict.fromkeys(range(6), 0.0)
    for message in everything:
        for delta in message.deltas:
            sums[delta.index] += sum(token.logprob for token in delta.tokens)
    [message] = [m async for m in stub.Generate(asked("all", n=2, best_of=6, **options))]
    found = [sum(token.logprob for token in delta.tokens) for delta in message.deltas]
    assert found == pytest.approx(sorted(sums.values(), reverse=True)[:2])
    assert [delta.index for delta in message.deltas] == [0, 1]
    assert message.summary.num_completion_tokens == 36


async def test_prompt_logprobs_come_once(stub: PythiaStub, runner: PythiaRunner) -> None:
    request = asked([5, 6, 7, 8], max_tokens=4, n=2, prompt_logprobs=1, ignore_eos=True)
    messages = [message async for message in stub.Generate(request)]
    [scored] = await runner.score([score_request((5, 6, 7, 8), 1)])
    assert [token.logprob for m in messages for token in m.prompt_tokens] == [
        lp.logprob for lp in scored.prompt_logprobs or ()
    ]


async def test_score_keeps_the_order_and_bad_items_apart(stub: PythiaStub) -> None:
    good = pb.ScoreItem(prompt={"text": "the"}, continuation={"text": " end"}, logprobs=2)
    request = pb.ScoreRequest(
        items=[good, pb.ScoreItem(), pb.ScoreItem(prompt={"tokens": {"ids": [999]}}), good]
    )
    first, missing, unknown, last = (await stub.Score(request)).results
    assert first == last
    assert first.score.logprob == pytest.approx(sum(t.logprob for t in first.score.tokens))
    assert first.score.num_tokens == len(first.score.tokens) > 0
    assert all(len(token.top) == 2 for token in first.score.tokens)
    assert (missing.error.message, missing.error.param) == ("prompt is required", "prompt")
    assert "999" in unknown.error.message and unknown.error.code == "invalid_value"


async def test_tokenizer(stub: PythiaStub, runner: PythiaRunner) -> None:
    for text in ("", "the end", "in thé all " * 900):
        ids = (await stub.Tokenize(pb.TokenizeRequest(text=text))).ids
        assert list(ids) == runner.tokenizer.encode(text)
        assert (await stub.Detokenize(pb.DetokenizeRequest(ids=ids))).text == text


async def test_info(stub: PythiaStub, runner: PythiaRunner) -> None:
    info = await stub.Info(pb.InfoRequest())
    assert (info.model, list(info.aliases)) == (INFO.id, list(INFO.aliases))
    assert info.limits.context_tokens == runner.limits.max_positions
    assert info.limits.vocabulary == runner.limits.num_tokens


@pytest.mark.parametrize("model", ["", "toy", "toy@step3"])
async def test_names_of_the_model(stub: PythiaStub, model: str) -> None:
    request = asked("a", max_tokens=1)
    request.model = model
    assert [message async for message in stub.Generate(request)]
    score = pb.ScoreRequest(items=[pb.ScoreItem(prompt={"text": "the"})], model=model)
    assert len((await stub.Score(score)).results) == 1


async def test_an_error_in_the_middle_of_a_stream(stub: PythiaStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Generate(asked([5, POISON, 5], max_tokens=5)):
            pass
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "not finite numbers" in str(caught.value.details())


async def test_bodies_of_items_are_not_there_at_once(
    stub: PythiaStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would look through the lists of all of them for cycles."""
    made = most = 0
    body, prepare = messages_module.score_body, scoring._Batch.prepare

    def counted(item: pb.ScoreItem) -> Any:
        nonlocal made
        made += 1
        return body(item)

    async def prepared(self: scoring._Batch, item: Any) -> Any:
        nonlocal made, most
        most = max(most, made)
        made -= 1
        return await prepare(self, item)

    monkeypatch.setattr(messages_module, "score_body", counted)
    monkeypatch.setattr(scoring._Batch, "prepare", prepared)
    item = pb.ScoreItem(prompt=pb.Prompt(tokens=pb.TokenIds(ids=[5, 6, 7])))
    assert len((await stub.Score(pb.ScoreRequest(items=[item] * 20))).results) == 20
    assert (made, most) == (0, 1)
