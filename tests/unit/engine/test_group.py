"""Many checkpoints take turns on one device, and none of them is seen in another's answer."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pythia_bento.engine import moves
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.members import LoadEnd
from pythia_bento.engine.outputs import SequenceOutput, collect
from pythia_bento.engine.params import Request
from pythia_bento.errors import (
    CheckpointError,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
)
from tests.unit.engine.toy import Chunk
from tests.unit.engine.toy_group import ToyLoader, alone, ask, run, toy_group


def mixed(count: int, models: int, seed: int = 0) -> list[Request]:
    random_ = random.Random(seed)
    prompts = [tuple(random_.randrange(2, 90) for _ in range(13)) for _ in range(3)]
    asked = []
    for number in range(count):
        cut = random_.randrange(1, 14)
        one = ask(
            random_.randrange(models),
            f"r{number}",
            random_.choice(prompts)[:cut],
            max_tokens=random_.randrange(0, 9),
            temperature=random_.choice((0, 1)),
            seed=number,
            n=random_.choice((1, 1, 2)),
            prompt_logprobs=random_.choice((None, 0, 2)),
            caller=f"c{random_.randrange(8)}",
            ignore_eos=True,
        )
        if one.params.max_tokens == 0:
            one = replace(one, n=1, params=replace(one.params, prompt_logprobs=1))
        asked.append(one)
    return asked


def said(answers: list[SequenceOutput]) -> list[tuple[object, ...]]:
    return [
        (
            a.token_ids,
            a.text,
            a.finish_reason,
            a.error and a.error.message,
            a.prompt_logprobs and list(a.prompt_logprobs),
        )
        for a in answers
    ]


@pytest.fixture(scope="module")
def wanted() -> list[Any]:
    """What is said of each of many requests alone."""
    return [said(alone(int(one.weights[1:]), one)) for one in mixed(240, 6)]


@pytest.mark.no_cover
@pytest.mark.parametrize("turn_seconds", [0.0, 0.002])
@pytest.mark.parametrize("capacity", [1, 2, 6])
def test_mixed_requests_over_six_checkpoints_are_answered_as_alone(
    wanted: list[Any], capacity: int, turn_seconds: float
) -> None:
    loader = ToyLoader(steps=2)
    group = toy_group(capacity=capacity, loader=loader, turn_seconds=turn_seconds, num_blocks=24)
    asked = mixed(240, 6)
    waiting, outputs = list(asked), []
    while waiting or group.has_work:
        for one in waiting[:7]:
            group.add_request(one)
        del waiting[:7]
        outputs += group.step()
    group.check()
    stats = group.stats()
    assert stats.blocks_used == stats.running == stats.waiting == 0
    assert stats.group.on_device <= capacity and (capacity == 6) == (stats.group.evictions == 0)
    for one, answers, single in zip(asked, collect(asked, outputs), wanted, strict=True):
        assert said(answers) == single, one


def test_a_prompt_that_one_has_computed_is_found_by_that_one_alone() -> None:
    group = toy_group(3, 3)
    prompt = tuple(range(2, 15))
    for number in range(3):
        group.add_request(ask(number, f"cold {number}", prompt, max_tokens=1))
    assert all(output.num_cached_tokens == 0 for output in run(group))
    for number in range(3):
        group.add_request(ask(number, f"warm {number}", prompt, max_tokens=1))
    assert all(output.num_cached_tokens == 12 for output in run(group))


def test_steps_have_sequences_of_one_checkpoint() -> None:
    seen: list[set[str]] = []

    def look(chunks: list[Chunk]) -> None:
        seen.append({chunk.sequence.request.weights for chunk in chunks})

    group = toy_group(4, 4, before=look)
    for number in range(16):
        group.add_request(ask(number % 4, f"r{number}", max_tokens=5))
    run(group)
    assert {len(step) for step in seen} == {1} and len(set(map(frozenset, seen))) == 4


def test_a_cold_checkpoint_does_not_wait_for_anothers_thousand() -> None:
    loader = ToyLoader(steps=3)
    group = toy_group(12, 3, loader=loader, max_batch_size=4)
    for number in range(1000):
        group.add_request(ask(0, f"many {number}", max_tokens=4, caller="busy"))
    for _ in range(5):
        group.step()
    group.add_request(ask(7, "one", max_tokens=4, caller="other"))
    ended: list[str] = []
    while "one" not in ended:
        ended += [o.request_id for o in group.step() if o.finish_reason]
    assert len(ended) < 40
    for request_id in [f"many {number}" for number in range(1000)]:
        group.abort(request_id)
    run(group)


def test_blocks_that_become_free_are_kept_for_who_needs_many() -> None:
    group = toy_group(2, 2, num_blocks=16)
    group.pin("m1", is_pinned=True)
    group.add_request(ask(1, "loads", max_tokens=1))
    run(group)
    for number in range(12):
        group.add_request(ask(0, f"small {number}", (3, 4), max_tokens=9, ignore_eos=True))
    group.step()
    group.add_request(ask(1, "large", tuple(range(2, 58)), max_tokens=2))
    ended: list[str] = []
    following = 12
    while "large" not in ended:
        done = [o.request_id for o in group.step() if o.finish_reason]
        ended += done
        for _ in done:
            group.add_request(ask(0, f"small {following}", (3, 4), max_tokens=9, ignore_eos=True))
            following += 1
        assert len(ended) < 200, "small ones take each block that becomes free"
    for number in range(following):
        group.abort(f"small {number}")
    run(group)


def test_one_that_always_has_work_makes_room_for_those_that_wait() -> None:
    loader = ToyLoader()
    group = toy_group(3, 1, loader=loader)
    ended: dict[str, int] = {"m0": 0, "m1": 0, "m2": 0}
    for number in range(3):
        group.add_request(ask(number, f"m{number} 0", max_tokens=3))
    end = time.monotonic() + 120
    while min(ended.values()) < 3 and time.monotonic() < end:
        for output in group.step():
            if output.finish_reason:
                key = output.request_id.split()[0]
                ended[key] += 1
                group.add_request(ask(int(key[1:]), f"{key} {ended[key]}", max_tokens=3))
    assert min(ended.values()) >= 3, ended
    assert group.stats().group.evictions >= 2


def test_a_pinned_one_stays() -> None:
    loader = ToyLoader()
    group = toy_group(6, 2, loader=loader)
    group.pin("m0", is_pinned=True)
    for number in (1, 2, 3, 0, 4):
        group.add_request(ask(number, f"r{number}", max_tokens=2))
        run(group)
    assert loader.loads == ["m1", "m2", "m3", "m4"] and "m0" not in loader.kept
    group.pin("m0", is_pinned=False)
    group.add_request(ask(5, "r5", max_tokens=2))
    run(group)
    assert loader.kept[-1] == "m0"


def test_a_checkpoint_that_cannot_be_loaded_fails_its_own_requests() -> None:
    loader = ToyLoader(steps=1)
    loader.faults["m2"] = CheckpointError("m2 will not be served: model.safetensors is damaged")
    group = toy_group(3, 2, loader=loader)
    for number in range(3):
        group.add_request(ask(number, f"r{number}", max_tokens=3, n=2))
    outputs = run(group)
    failed = {(o.request_id, o.index) for o in outputs if o.error}
    assert failed == {("r2", 0), ("r2", 1)}
    assert group.residencies["m2"].state == "failed"
    with pytest.raises(CheckpointError, match="is damaged"):
        group.add_request(ask(2, "again", max_tokens=3))
    assert loader.loads.count("m2") == 1
    loader.is_changed = True
    del loader.faults["m2"]
    group.add_request(ask(2, "again", max_tokens=3))
    assert not any(o.error for o in run(group))
    assert group.stats().group.failed_loads == 1 and group.stats().group.failed == 0


def test_without_memory_another_goes_and_at_last_the_requests() -> None:
    loader = ToyLoader()
    group = toy_group(3, 3, loader=loader)
    group.add_request(ask(1, "r1", max_tokens=2))
    run(group)
    loader.faults["m2"] = MemoryError()
    group.add_request(ask(2, "r2", max_tokens=2))
    [output] = run(group)
    assert output.error is not None and output.error.code == "out_of_memory"
    assert set(loader.kept) == {"m0", "m1"} and loader.loads.count("m2") == 3
    del loader.faults["m2"]
    for number in range(3):
        group.add_request(ask(number, f"again {number}", max_tokens=2))
    assert not any(o.error for o in run(group))


def test_deadlines_hold_while_a_checkpoint_is_loaded() -> None:
    loader = ToyLoader(steps=10**9)
    group = toy_group(2, 2, loader=loader)
    late = replace(ask(1, "late", max_tokens=2, n=2), deadline=time.monotonic() + 0.05)
    group.add_request(late)
    group.add_request(ask(0, "other", max_tokens=2))
    outputs = run(group)
    assert [o.error.code for o in outputs if o.request_id == "late" and o.error] == [
        "deadline_exceeded"
    ] * 2
    assert any(o.request_id == "other" and o.finish_reason == "length" for o in outputs)


def test_those_that_leave_while_it_is_loaded_leave_nothing_behind() -> None:
    loader = ToyLoader(steps=5)
    group = toy_group(3, 1, loader=loader)
    group.add_request(ask(1, "a", max_tokens=2))
    group.step()
    group.add_request(ask(2, "b", max_tokens=2))
    assert group.abort("a") == group.abort("b") == group.abort("c") == []
    assert not group.has_work
    group.add_request(ask(0, "d", max_tokens=2))
    assert len({o.request_id for o in run(group)}) == 1
    assert "m2" not in loader.loads


def test_more_checkpoints_than_may_wait_are_refused() -> None:
    group = toy_group(6, 1, loader=ToyLoader(steps=10**9), max_cold=2)
    group.add_request(ask(1, "first"))
    group.step()
    for number in (2, 3, 3):
        group.add_request(ask(number, f"{number} {random.random()}"))
    with pytest.raises(
        Overloaded, match="2 checkpoints wait to be loaded, which is the limit"
    ) as e:
        group.add_request(ask(4, "one more"))
    assert e.value.retry_after == 1, "nobody knows yet how long a load takes"


def test_who_is_refused_is_told_to_come_when_those_before_it_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]

    class SevenSeconds(ToyLoader):
        def take(self) -> LoadEnd | None:
            if (end := super().take()) is not None:
                now[0] += 7
            return end

    monkeypatch.setattr(moves, "time", SimpleNamespace(monotonic=lambda: now[0]))
    loader = SevenSeconds()
    group = toy_group(6, 1, loader=loader, max_cold=2)
    group.add_request(ask(1, "first", max_tokens=1))
    run(group)
    assert group.stats().group.load_microseconds_disk == 7_000_000
    loader.steps = 10**9
    for number in (2, 3, 4):
        group.add_request(ask(number, str(number)))
        group.step()
    with pytest.raises(Overloaded) as error:
        group.add_request(ask(5, "one more"))
    assert error.value.retry_after == 14


def leaving() -> tuple[EngineGroup, ToyLoader, list[SequenceOutput]]:
    """A group whose m1 is to go and has a request that runs, and one that came later."""
    loader = ToyLoader()
    group = toy_group(2, 2, loader=loader)
    group.add_request(ask(1, "r", max_tokens=6))
    outputs = group.step() + group.step()
    group.unload("m1")
    group.add_request(ask(1, "later", max_tokens=1))
    return group, loader, outputs


def test_unloading_waits_for_what_runs() -> None:
    group, loader, outputs = leaving()
    outputs += run(group)
    assert loader.loads == ["m1", "m1"], "what came later waits for its return"
    assert {o.request_id for o in outputs if o.finish_reason == "length"} == {"r", "later"}
    group.unload("m1")
    assert group.residencies["m1"].state == "disk"
    group.unload("m1")
    group.unload("unknown")


def test_one_that_was_to_go_stays_when_it_is_pinned() -> None:
    group, loader, outputs = leaving()
    group.pin("m1", is_pinned=True)
    outputs += run(group)
    assert {o.request_id for o in outputs if o.finish_reason == "length"} == {"r", "later"}
    assert loader.loads == ["m1"] and group.residencies["m1"].state == "device"


def test_ids_in_use_and_unknown_keys_are_refused() -> None:
    group = toy_group(2, 2, loader=ToyLoader(steps=3))
    group.add_request(ask(1, "same"))
    with pytest.raises(InvalidRequest, match="'same' is in use"):
        group.add_request(ask(1, "same"))
    with pytest.raises(ModelNotFound):
        group.add_request(ask(9, "other"))
    group.close()
    assert not group.is_alive
    with pytest.raises(EngineUnavailable):
        group.step()


def test_who_leaves_the_host_too_is_on_the_disk_again() -> None:
    loader = ToyLoader()
    loader.places = 2
    group = toy_group(5, 2, loader=loader)
    group.pin("m0", is_pinned=True)
    for number in (1, 2, 3, 4):
        group.add_request(ask(number, str(number), max_tokens=1))
        run(group)
    states = {key: one.state for key, one in group.residencies.items()}
    assert states == {"m0": "device", "m1": "disk", "m2": "host", "m3": "host", "m4": "device"}
    stats = group.stats().group
    assert (stats.evictions, stats.host_evictions, stats.on_host) == (3, 1, 2)
    group.add_request(ask(3, "again", max_tokens=1))
    run(group)
    stats = group.stats().group
    assert (sum(stats.load_times_disk), sum(stats.load_times_host)) == (4, 1)
    assert (stats.evictions, stats.host_evictions, stats.on_host) == (4, 2, 1)
    assert group.residencies["m2"].state == "disk"
    assert group.residencies["m3"].state == "device"


def test_the_loader_is_told_what_it_will_read_from_the_disk_next() -> None:
    loader = ToyLoader(steps=3)
    loader.places = 2
    group = toy_group(5, 2, loader=loader)
    group.pin("m0", is_pinned=True)
    for number in (1, 2):  # m1 makes room for m2, and is kept
        group.add_request(ask(number, str(number), max_tokens=1))
        run(group)
    assert loader.on_host == ["m1"] and not any(loader.expected)
    for number in (3, 1, 4):
        group.add_request(ask(number, f"again {number}", max_tokens=1))
    group.step()
    group.step()
    assert loader.loads[-1] == "m3" and loader.expected[-1] == 4  # m1 is not on the disk alone
    run(group)
    assert loader.expected[-1] is None
