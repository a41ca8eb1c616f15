"""A device without memory: the forward pass of a real engine raises what torch raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Chunk, EngineConfig
from pythia_bento.errors import OutOfMemory
from tests.unit.engine.toy import ToyExecutor, ToyModel, request, toy_engine

MESSAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


def limited(
    may: Callable[[int, int], bool], error: Exception, went: list[int] | None = None
) -> Engine:
    """Passes of (sequences, tokens) fail unless ``may``; ``went`` gets the others' sequences."""

    def before(chunks: Sequence[Chunk]) -> None:
        if not may(len(chunks), sum(chunk.count for chunk in chunks)):
            raise error
        if went is not None:
            went.append(len(chunks))

    return toy_engine(before=before)


def requests(count: int = 8):
    return [request(str(i), (i + 2, 6, 7, 8, 9), max_tokens=6, seed=i) for i in range(count)]


@pytest.mark.parametrize("error", MESSAGES, ids=lambda error: type(error).__name__)
def test_smaller_steps_give_the_same_answers(error: Exception) -> None:
    expected = toy_engine().generate(requests())
    went: list[int] = []
    engine = limited(lambda sequences, tokens: sequences <= 3, error, went)
    assert engine.generate(requests()) == expected
    assert max(went) <= 3
    assert engine.stats().blocks_used == 0
    engine.check()


def test_a_prompt_is_cut_until_it_fits() -> None:
    asked = [request("r", tuple(range(2, 32)), max_tokens=4)]
    expected = toy_engine().generate(asked)
    engine = limited(lambda sequences, tokens: tokens <= 8, MESSAGES[0])
    assert engine.generate(asked) == expected


def test_who_does_not_fit_even_alone_fails_alone() -> None:
    passes = iter([True, False, False] + [True] * 100)
    engine = limited(lambda sequences, tokens: next(passes), MESSAGES[0])
    answers = engine.generate(requests(3))
    failed = [answer for [answer] in answers if answer.error]
    assert [type(answer.error) for answer in failed] == [OutOfMemory]
    assert [answer.finish_reason for [answer] in answers].count("length") == 2
    assert engine.stats().blocks_used == 0
    engine.check()


def test_continuations_that_wait_for_the_prompt_fail_with_it() -> None:
    engine = limited(lambda sequences, tokens: False, MESSAGES[0])
    [answers] = engine.generate([request("r", n=3)])
    assert [type(answer.error) for answer in answers] == [OutOfMemory] * 3
    assert not engine.has_work
    assert engine.is_alive


def test_other_failures_are_not_taken_for_it() -> None:
    error = RuntimeError("CUDA error: illegal address")
    engine = limited(lambda sequences, tokens: False, error)
    engine.add_request(request())
    with pytest.raises(RuntimeError, match="illegal address"):
        engine.step()


@pytest.mark.parametrize("error", MESSAGES, ids=lambda error: type(error).__name__)
def test_every_allocator_raises_one_kind_of_error(error: Exception) -> None:
    def before(chunks: Sequence[Chunk]) -> None:
        raise error

    executor = ToyExecutor(ToyModel(), EngineConfig(8), before)
    with pytest.raises(MemoryError) as caught:
        executor.execute([])
    assert str(error) in str(caught.value)
    assert caught.value.__context__ is None  # nothing holds the tensors of the failed step
