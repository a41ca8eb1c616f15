"""Six training steps behind one runner, memory for two: each answers as a runner of its own."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import shutil
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from pythia_bento.catalog import int8_bytes
from pythia_bento.checkpoints.bundle import BUNDLED_ROOT, list_bundled
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import Shelf
from pythia_bento.engine.outputs import SequenceOutput, raise_error
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.errors import CheckpointError, DeadlineExceeded, InvalidRequest, ModelNotFound
from pythia_bento.runtime import served_models
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings, SettingsError
from tests.unit.runtime.toy_runner import settled

NAMES = [step.model_id for step in list_bundled()]
GB = int8_bytes(load_checkpoint("bundled").config) / 1e9
TWO = {"device": "cpu", "models_gb": 2.2 * GB, "kv_cache_gb": 0.05, "turn_ms": 5.0}
# On a GPU the one that computes is there a second time.
TWO_OF = {"cpu": TWO, "cuda": TWO | {"device": "cuda", "models_gb": 3.2 * GB}}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def mixed(count: int) -> list[tuple[str, Request]]:
    """Greedy and sampled, with log-probabilities and without, scored and continued."""
    rng = random.Random(16)
    prompts = [tuple(rng.randrange(5, 900) for _ in range(60)) for _ in range(4)]
    asked = []
    for number in range(count):
        params = SamplingParams(
            max_tokens=rng.randrange(1, 12),
            temperature=rng.choice((0.0, 0.9)),
            top_p=rng.choice((1.0, 0.9)),
            seed=number,
            logprobs=rng.choice((None, 3)),
            ignore_eos=True,
        )
        if number % 4 == 0:
            params = SamplingParams(max_tokens=0, prompt_logprobs=rng.choice((0, 2)))
        prompt = rng.choice(prompts)[: rng.randrange(3, 61)]
        caller = f"caller {rng.randrange(8)}"
        one = Request(new_request_id(), prompt, params, rng.choice((1, 2)), caller=caller)
        asked.append((rng.choice(NAMES), one if params.max_tokens else replace(one, n=1)))
    return asked


def said(answers: list[SequenceOutput]) -> list[tuple[object, ...]]:
    for answer in answers:
        raise_error(answer)
    return [
        (a.token_ids, a.text, a.logprobs, a.prompt_logprobs and list(a.prompt_logprobs))
        for a in answers
    ]


async def answers_of(
    runner: PythiaRunner, asked: list[tuple[str, Request]]
) -> list[list[SequenceOutput]]:
    async def ask(name: str, request: Request) -> list[SequenceOutput]:
        served = await runner.served(name)
        assert name in (served.info.id, *served.info.aliases)
        return (await served.complete([request]))[0]

    return await asyncio.gather(*(ask(*pair) for pair in asked))


@pytest.mark.no_cover
@pytest.mark.parametrize("device", DEVICES)
def test_mixed_requests_have_the_bits_of_a_server_of_each_step_alone(device: str) -> None:
    asked = mixed(240)
    with PythiaRunner.load(Settings(**TWO_OF[device])) as runner:
        got = asyncio.run(answers_of(runner, asked))
        settled(runner)
        stats = runner.stats()
        states = {s.info.id: s.residency.state for s in asyncio.run(runner.models.states())}
    assert [*states] == [NAMES[-1], *NAMES[:-1]]
    assert stats.group.evictions > 0 and stats.group.failed_loads == 0
    assert sorted(states.values()).count("device") <= 2
    for name in NAMES:
        own = [place for place, (asked_name, _) in enumerate(asked) if asked_name == name]
        with PythiaRunner.load(Settings(model=name, models="", device=device)) as alone:
            wanted = alone.complete_sync([asked[place][1] for place in own])
        assert len(own) > 20
        assert [said(got[place]) for place in own] == [said(one) for one in wanted]


def test_checkpoints_of_their_own_fingerprints_and_prefixes() -> None:
    prompt = tuple(range(5, 45))
    request = Request(new_request_id(), prompt, SamplingParams(max_tokens=2, ignore_eos=True))

    async def look(runner: PythiaRunner) -> None:
        prints = set()
        for turn in range(2):
            for name in NAMES:
                served = await runner.served(name)
                prints.add(served.info.fingerprint)
                once = replace(request, request_id=new_request_id())
                [[answer]] = await served.complete([once])
                assert answer.num_cached_tokens == 32 * turn, name
        assert len(prints) == len(NAMES)

    with PythiaRunner.load(Settings(**TWO | {"models_gb": 7 * GB})) as runner:
        asyncio.run(look(runner))


def test_names_that_are_not_on_the_shelf() -> None:
    async def look(runner: PythiaRunner) -> None:
        with pytest.raises(ModelNotFound, match="bundled@step300 is not served here; the nearest"):
            await runner.served("bundled@step300")
        assert (await runner.served(None)) is (await runner.served("bundled")) is runner

    with PythiaRunner.load(Settings(**TWO)) as runner:
        asyncio.run(look(runner))


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled steps, which a test may damage."""
    root = tmp_path / "steps"
    shutil.copytree(BUNDLED_ROOT, root)
    monkeypatch.setattr(served_models, "Shelf", partial(Shelf, bundled_root=root))
    return root


def test_a_file_that_changes_is_an_error_of_its_own_requests(steps: Path) -> None:
    weights = steps / "step64" / "model.safetensors"
    good = weights.read_bytes()

    async def look(runner: PythiaRunner) -> None:
        async def ask(name: str) -> SequenceOutput:
            params = SamplingParams(max_tokens=3, ignore_eos=True)
            served = await runner.served(name)
            [[answer]] = await served.complete([Request(new_request_id(), (5, 6, 7), params)])
            return raise_error(answer)

        before = await ask("bundled@step64")
        for name in NAMES:  # which drives it from the device
            await ask(name)
        await ask("bundled@step256")
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        refused, *others = await asyncio.gather(
            ask("bundled@step64"), *(ask(name) for name in NAMES[2:]), return_exceptions=True
        )
        assert isinstance(refused, CheckpointError)
        assert "bundled@step64 will not be served: model.safetensors" in refused.message
        assert all(isinstance(answer, SequenceOutput) for answer in others)
        state = await runner.models.state("bundled@step64")
        assert state.residency.state == "failed"
        with pytest.raises(CheckpointError):
            await ask("bundled@step64")
        weights.write_bytes(good)
        again = await ask("bundled@step64")
        assert (again.token_ids, again.text) == (before.token_ids, before.text)

    with PythiaRunner.load(Settings(**TWO)) as runner:
        asyncio.run(look(runner))
        settled(runner)
        assert runner.stats().group.failed_loads == 1


@pytest.mark.long
def test_memory_and_files_return(steps: Path) -> None:
    """After a hundred loads, evictions, unloads and a damaged file as after the first of them."""
    damaged = steps / "step64" / "model.safetensors"
    good = damaged.read_bytes()

    async def turn(runner: PythiaRunner, number: int) -> None:
        damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1 + number]))  # another one each time
        params = SamplingParams(max_tokens=2, ignore_eos=True)
        for name in NAMES:
            served = await runner.served(name)
            [[answer]] = await served.complete([Request(new_request_id(), (5, 6, 7), params)])
            assert (answer.error is None) == (name != "bundled@step64"), answer.error
        await runner.models.unload(NAMES[2])
        await runner.models.load(NAMES[2], is_pinned=False)

    gc.collect()
    others = {*threading.enumerate()}
    with PythiaRunner.load(Settings(**TWO)) as runner:
        for number in range(4):
            asyncio.run(turn(runner, number))
        memory, handles = held(others)
        for number in range(4, 24):
            asyncio.run(turn(runner, number))
        after, handles_after = held(others)
        settled(runner)
        runner._thread._engine.check()  # type: ignore[attr-defined]
        group = runner.stats().group
        assert group.failed_loads == 24 and group.evictions > 100
    assert handles_after <= handles
    assert after < 1.03 * memory


def held(others: set[threading.Thread]) -> tuple[int, int]:
    """Bytes of this process that are resident, and its open files, when nothing is under way.

    ``others`` are threads that were there before.
    """

    def is_loading() -> bool:
        names = [one.name for one in threading.enumerate() if one not in others]
        return any(name.startswith(("pythia-read", "pythia-hash")) for name in names)

    deadline = time.monotonic() + 60
    while is_loading():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is not lost
    process = psutil.Process()
    return process.memory_info().rss, process.num_fds()


def test_loading_and_unloading_by_hand() -> None:
    async def look(runner: PythiaRunner) -> None:
        loaded = await runner.models.load("bundled@step256", is_pinned=True)
        assert (loaded.residency.state, loaded.residency.is_pinned) == ("device", True)
        with pytest.raises(InvalidRequest, match="3 checkpoints on the device, which holds 3: one"):
            await runner.models.load("bundled@step512", is_pinned=True)
        left = await runner.models.unload("bundled@step256")
        assert (left.residency.state, left.residency.is_pinned) == ("disk", False)

    with PythiaRunner.load(Settings(**TWO | {"models_gb": 3.2 * GB})) as runner:
        asyncio.run(look(runner))


def test_deadlines_and_departures_leave_nothing_behind() -> None:
    params = SamplingParams(max_tokens=4, ignore_eos=True)

    async def look(runner: PythiaRunner) -> None:
        served = await runner.served("bundled@step512")
        [[late]] = await served.complete([Request(new_request_id(), (5, 6), params)], timeout=0)
        assert isinstance(late.error, DeadlineExceeded)
        stream = await served.submit([Request(new_request_id(), (5, 6), params)])
        stream.close()

    with PythiaRunner.load(Settings(**TWO)) as runner:
        asyncio.run(look(runner))
        settled(runner)


def test_memory_for_one_is_not_enough_for_many() -> None:
    with pytest.raises(SettingsError, match=r"models_gb \(PYTHIA_MODELS_GB\) is .* but one check"):
        PythiaRunner.load(Settings(**TWO | {"models_gb": 1.5 * GB}))


@pytest.mark.parametrize("device", DEVICES)
def test_an_engine_in_another_process_serves_many(device: str) -> None:
    asked, two = mixed(24), TWO_OF[device]
    with PythiaRunner.load(Settings(**two, engine_process=True)) as runner:
        got = asyncio.run(answers_of(runner, asked))
        states = asyncio.run(runner.models.states())
        assert sum(state.residency.state == "device" for state in states) in (1, 2)
    with PythiaRunner.load(Settings(**two)) as runner:
        wanted = asyncio.run(answers_of(runner, asked))
    assert list(map(said, got)) == list(map(said, wanted))
