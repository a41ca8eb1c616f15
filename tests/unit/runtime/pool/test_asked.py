from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.engine.outputs import SequenceOutput, collect
from pythia_bento.engine.params import Request
from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.pool.asked import Asked
from tests.unit.runtime.toy_runner import ask

TEXTS = ["", "a", "", "", "bcd", "e", "", "fgh", "i"]


def whole(request: Request, index: int) -> SequenceOutput:
    """An answer whose text lags behind its tokens, as where bytes are no character yet."""
    ids = [100 * index + i for i in range(len(TEXTS))]
    logprobs = [TokenLogprob(id, -id / 7, ()) for id in ids]
    return SequenceOutput(
        request.request_id, index, ids, "".join(TEXTS), logprobs, finish_reason="length"
    )


def cut(answer: SequenceOutput, chance: random.Random) -> list[SequenceOutput]:
    """The same in parts of any size."""
    cuts = sorted(chance.sample(range(1, len(TEXTS)), chance.randrange(4)))
    parts = []
    for start, end in zip([0, *cuts], [*cuts, len(TEXTS)], strict=True):
        part = replace(
            answer,
            token_ids=answer.token_ids[start:end],
            logprobs=(answer.logprobs or [])[start:end],
            text="".join(TEXTS[start:end]),
            finish_reason="length" if end == len(TEXTS) else None,
        )
        parts.append(part)
    return parts


@pytest.mark.parametrize("seed", range(40))
def test_a_repeat_goes_on_where_the_engine_ended(seed: int) -> None:
    chance = random.Random(seed)
    asked, told = Asked(request := ask(n=3, max_tokens=9)), []
    for try_ in range(3):
        asked.begin()
        parts = [cut(whole(request, index), chance) for index in range(3)]
        last = try_ == 2
        while any(parts):
            index = chance.choice([i for i in range(3) if parts[i]])
            if (new := asked.take(parts[index].pop(0))) is not None:
                told.append(new)
            if not last and chance.random() < 0.2:
                break
    assert sum(one.finish_reason is not None for one in told) == 3
    assert collect([request], told) == [[whole(request, index) for index in range(3)]]
    assert asked.has_ended
    assert asked.failures(EngineUnavailable("dead")) == []


def test_scores_of_a_prompt_are_told_once() -> None:
    asked = Asked(request := ask(max_tokens=2))
    first = SequenceOutput(request.request_id, 0, [1], "a", prompt_logprobs=object())  # type: ignore[arg-type]
    asked.begin()
    assert asked.take(first) is first
    asked.begin()
    assert asked.take(first) is None
    second = asked.take(replace(first, token_ids=[2], text="b", finish_reason="length"))
    assert second is not None
    assert (second.token_ids, second.text, second.prompt_logprobs) == ([2], "b", None)


def test_one_that_only_scores_is_told_though_it_has_no_tokens() -> None:
    asked = Asked(request := ask(max_tokens=0))
    for _ in range(2):
        asked.begin()
    output = SequenceOutput(request.request_id, 0, [], "", finish_reason="length")
    assert asked.take(output) == output


def test_what_is_left_to_do() -> None:
    asked = Asked(request := ask((1, 2, 3), n=2, max_tokens=4))
    asked.begin()
    assert asked.work == 3 + 8 * 2 * 4
    asked.take(SequenceOutput(request.request_id, 1, [7, 8], "xy"))
    assert asked.work == 8 * (2 * 4 - 2)
    asked.begin()
    assert asked.work == 3 + 8 * 2 * 4
    [first, second] = asked.failures(error := EngineUnavailable("dead"))
    assert (first.index, second.index, first.error) == (0, 1, error)
