"""Checkpoints that take turns in captured graphs: each has the bits that it has alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu.invariance import facts, together
from bench.gpu.residents import HostLoader, OneStep, group_of, tag
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.read_once import open_entry
from pythia_bento.checkpoints.save import save_int8
from pythia_bento.checkpoints.shelf import entry_of
from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, SamplingParams, score_request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.host_slabs import Aside, HostSlabs
from pythia_bento.model.kernels.gpu.slab import Filling, outline
from pythia_bento.model.kernels.gpu.uploads import Uploads
from pythia_bento.model.pack import pack
from tests.gpu.test_options import requests
from tests.gpu.test_triton import RandomWeights, on_gpu
from tests.models import random_checkpoint
from tests.tokenizer_parts import raw_tokenizer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = EngineConfig(600, 16, 512)
KEYS = "abcd"


class Seeded(RandomWeights):
    """Other weights of the same shape with every seed."""

    def __init__(self, seed: int, loud: float = 1.0) -> None:
        super().__init__(64, loud)
        self.seed = seed

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.random) + 0.02 * self.seed

    def linear(self, out: int, into: int, gain: float = 1.0) -> Any:
        linear = super().linear(out, into, gain)
        return replace(linear, weight=linear.weight.roll(self.seed, 0))


def model(seed: int, loud: float = 1.0) -> GPTNeoX:
    with torch.inference_mode():
        return on_gpu(Seeded(seed, loud))


def resident(key: str, loud: float = 1.0) -> GPTNeoX:
    """A model whose weights are one piece of memory."""
    found = model(ord(key), loud)
    found.weights = found.kernels.contiguous(found.weights, tag(key))
    return found


def _weights(key: str) -> PackedWeights:
    return resident(key).weights


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(raw_tokenizer())


def alone(seed: int, asked: list[Request], loud: float = 1.0) -> list[Any]:
    """What a server of these weights alone answers."""
    tokenizer = Tokenizer(raw_tokenizer())
    engine = Engine(make_executor(model(seed, loud), SIZES, tokenizer.num_tokens), tokenizer)
    answers = [facts(engine.generate([replace(one, weights="")])[0][0]) for one in asked]
    engine.close()
    return answers


def mixed(keys: str, count: int) -> list[Request]:
    """Requests with every option, and texts to score, for all of them."""
    draw = random.Random(count)
    scored = [
        replace(
            score_request(tuple(draw.randrange(1, 200) for _ in range(n)), 1), request_id=str(n)
        )
        for n in (3, 70, 130, 400)
    ]
    asked = requests(count, count) + scored
    return [
        replace(one, weights=draw.choice(keys), caller=f"c{i % 5}") for i, one in enumerate(asked)
    ]


@pytest.mark.parametrize("capacity, turn, blocks", [(4, 0.0, 600), (4, 0.01, 40), (2, 0.005, 600)])
def test_answers_are_those_of_each_alone(
    capacity: int, turn: float, blocks: int, tokenizer: Tokenizer
) -> None:
    asked = mixed(KEYS, 60)
    first = resident("a")
    assert first.weights.slab is not None
    size = len(first.weights.slab.memory)
    loader = HostLoader(tokenizer, HostSlabs(DEVICE, size, 3 * size))
    executor = make_executor(first, replace(SIZES, num_blocks=blocks), tokenizer.num_tokens)
    entries = {key: partial(_weights, key) for key in KEYS}
    places = {"capacity": capacity, "turn_seconds": turn}
    group = group_of(executor, first.weights, entries, loader, tokenizer, **places)
    answers: dict[str, Any] = {}
    for begin in range(0, len(asked), 16):  # one that is idle meanwhile makes room, and returns
        answers |= together(group, asked[begin : begin + 16])  # type: ignore[arg-type]
    group.check()
    if capacity < len(KEYS):
        assert loader.returned > 0
    group.close()
    for key in KEYS:
        own = [one for one in asked if one.weights == key]
        assert own
        for one, wanted in zip(own, alone(ord(key), own), strict=True):
            assert facts(answers[one.request_id]) == wanted


@pytest.mark.parametrize("batch", [1, 12])  # the persistent kernel, and four kernels a layer
def test_weights_that_change_before_every_step_leave_no_trace(
    batch: int, tokenizer: Tokenizer
) -> None:
    models = [resident(key) for key in KEYS]
    weights = [model.weights for model in models]
    runner: Any = make_executor(models[0], SIZES, tokenizer.num_tokens)
    runner.ahead = OneStep(runner)
    pool = BlockPool(SIZES.num_blocks)
    engines = [Engine(runner, tokenizer, root=tag(key), pool=pool) for key in KEYS]
    asked = [one for one in requests(40, batch) if one.params.logprobs is None][:batch]
    found: list[dict[str, Any]] = [{} for _ in KEYS]
    for engine in engines:
        for one in asked:
            engine.add_request(one)
    for place in itertools.cycle(range(len(KEYS))):
        if not any(engine.has_work for engine in engines):
            break
        runner.activate(weights[place], is_last=True)
        for delta in engines[place].step():
            if delta.request_id in found[place]:
                found[place][delta.request_id].extend(delta)
            else:
                found[place][delta.request_id] = delta
    said = [[facts(own[one.request_id]) for one in asked] for own in found]
    assert said == [alone(ord(key), asked) for key in KEYS]
    assert all(one != other for one, other in itertools.combinations(said, 2))


def test_other_scales_are_computed_without_graphs_and_have_the_same_bits(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    first, loud = resident("a"), resident("b", 1e6)
    assert first.weights.slab is not None and loud.weights.slab is not None
    assert first.weights.slab.scalars != loud.weights.slab.scalars
    runner: Any = make_executor(first, SIZES, tokenizer.num_tokens)
    engine = Engine(runner, tokenizer)
    asked = [replace(one, weights="") for one in mixed("b", 20)]
    runner.activate(loud.weights, is_last=False)
    found = [facts(engine.generate([one])[0][0]) for one in asked]
    engine.close()
    assert found == alone(ord("b"), asked, 1e6)
    assert sum("without graphs" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("kind", ["decode", "prompt", "options", "scores"])
def test_weights_that_are_not_those_asked_for_end_the_engine(
    kind: str, tokenizer: Tokenizer
) -> None:
    runner: Any = make_executor(resident("a"), SIZES, tokenizer.num_tokens)
    engine = Engine(runner, tokenizer)
    logprobs = 3 if kind == "options" else None
    params = SamplingParams(max_tokens=30, ignore_eos=True, logprobs=logprobs)
    asked = Request("r", (5, 6, 7), params)
    if kind == "scores":
        asked = score_request((5, 6, 7), 1)
    engine.add_request(asked)
    if kind == "decode":
        engine.step()
        runner.ahead.forget()
    with torch.inference_mode():  # behind the runner's back
        runner._active.weights.slab.memory.copy_(resident("c").weights.slab.memory)
    with pytest.raises(RuntimeError, match=f"weights {tag('c').hex()[:12]} have computed"):
        while engine.has_work:
            engine.step()


def test_one_model_has_no_second_copy(tokenizer: Tokenizer) -> None:
    alone = model(1)
    runner: Any = make_executor(alone, SIZES, tokenizer.num_tokens)
    assert runner._active.weights is alone.weights
    assert runner._active.proof() is None


def test_slabs_go_to_the_host_and_come_back_while_the_device_computes() -> None:
    weights = {key: resident(key).weights for key in KEYS}
    slab = weights["a"].slab
    assert slab is not None
    size = len(slab.memory)
    host = HostSlabs(DEVICE, size, 4 * size)
    busy = torch.randn(4096, 4096, device=DEVICE)
    for key in KEYS:
        host.prepare()
        assert host.put(key, weights[key])
    assert all(one.memory.bytes.is_pinned() for one in host._kept.values())
    known = {key: _memory(own).clone() for key, own in weights.items()}
    weights.clear()
    for key in (*KEYS, *reversed(KEYS)):
        for _ in range(20):
            busy = busy @ busy / 4096**0.5
        back = host.get(key)
        assert torch.equal(_memory(back), known[key])
    host.close()


def _memory(weights: PackedWeights | None) -> torch.Tensor:
    assert weights is not None and weights.slab is not None
    return weights.slab.memory


@pytest.fixture(autouse=True)
def free() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


def test_uploads_arrive_whole_in_a_stream_of_their_own() -> None:
    """A piece that is filled again before it was sent would show as another tensor's bytes."""
    made, aside = Uploads(DEVICE, 1 << 20), Aside(DEVICE)
    draw = torch.Generator().manual_seed(0)
    sent = [
        torch.randint(-128, 128, (size,), generator=draw, dtype=torch.int8)
        for size in (1, 1 << 20, (5 << 20) + 3, 777, 9 << 20)
    ]
    for _ in range(5):
        with aside.work():
            found = [made.upload(one) for one in sent]
        for one, other in zip(sent, found, strict=True):
            assert other.device.type == DEVICE.type
            assert torch.equal(one, other.cpu())


def test_a_slab_that_is_filled_on_the_way_is_that_of_whole_weights(tmp_path: Path) -> None:
    random_checkpoint(tmp_path / "float")
    source = load_checkpoint(str(tmp_path / "float")).source
    save_int8(source, tmp_path / "float", tmp_path / "int8", shard_bytes=1)
    entry = entry_of(load_checkpoint(str(tmp_path / "int8")))
    kernels = create("triton", entry.config, DEVICE)
    whole = kernels.contiguous(pack(source, kernels), tag("b"))
    filling, aside = Filling(outline(whole), tag("b"), DEVICE), Aside(DEVICE)
    with aside.work(), closing(open_entry(entry, bring=Uploads(DEVICE).upload)) as opened:
        found = filling.whole(pack(opened, kernels, place=filling.place))
    aside.hand_over(filling.memory)
    assert found.slab is not None and whole.slab is not None
    assert torch.equal(found.slab.memory, whole.slab.memory)


def test_what_comes_back_is_all_there_though_it_was_just_put_away() -> None:
    """Each way has a stream of its own."""
    weights = [resident(key).weights for key in KEYS]
    assert weights[0].slab is not None
    host = HostSlabs(DEVICE, len(weights[0].slab.memory), 4 * len(weights[0].slab.memory))
    for turn in range(40):
        key = turn % len(KEYS)
        host.prepare()
        assert host.put(KEYS[key], weights[key])
        back = host.get(KEYS[key])
        assert back is not None and back.slab is not None
        own = weights[key].slab
        assert own is not None and torch.equal(back.slab.memory, own.memory)
    host.close()
