"""Passes with taps on a GPU: their bits, and what they show beside the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.gpu.invariance import facts, together
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.executor.capture_memory import CaptureMemory
from pythia_bento.executor.model_runner import ModelRunner
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.sites import RESID_POST, SITES, Place, Site, Z
from tests.forward import Driver
from tests.gpu.test_triton import HEADS, VOCAB, RandomWeights, on_gpu
from tests.integration.captures import Capturing, capturing, everything
from tests.integration.captures import same as same_rows
from tests.taps import Recorder
from tests.tokenizer_parts import raw_tokenizer

LAYERS = 2
ERROR = 1e-2  # relative, of rows that travelled as fp16
LENGTHS = (1, 16, 70, 5)
WRITABLE = [site for site in SITES if site.is_writable]


def prompts(*lengths: int) -> list[list[int]]:
    return [[(11 * i + length) % VOCAB for i in range(length)] for length in lengths]


def reference(weights: RandomWeights) -> GPTNeoX:
    return GPTNeoX(weights, create("reference", weights.config, torch.device("cpu")))


def seen(model: GPTNeoX, prompt: list[int], chunk: int | None = None) -> Recorder:
    recorder = Recorder()
    Driver(model, [prompt], 1, recorder).prefill_logits(0, chunk)
    return recorder


def bits(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.int32)


def same(one: Tensor, other: Tensor) -> bool:
    """Patterns may be of different widths: beyond the narrower one there must be nothing."""
    width = min(one.shape[-1], other.shape[-1])
    rest = one[..., width:].any() or other[..., width:].any()
    return torch.equal(bits(one[..., :width]), bits(other[..., :width])) and not rest


@pytest.mark.parametrize("length", [70, 600])  # from 513 on weights are widened
@pytest.mark.parametrize("head_dim", HEADS)
def test_taps_change_no_bit(head_dim: int, length: int) -> None:
    model, [prompt] = on_gpu(RandomWeights(head_dim)), prompts(length)
    plain = Driver(model, [prompt], 1).hidden([0])
    for wanted in (SITES, ()):
        assert torch.equal(Driver(model, [prompt], 1, Recorder(wanted)).hidden([0]), plain)


@pytest.mark.parametrize("head_dim", HEADS)
def test_rows_do_not_depend_on_others_or_on_chunks(head_dim: int) -> None:
    model, together = on_gpu(RandomWeights(head_dim)), Recorder()
    Driver(model, prompts(*LENGTHS), 1, together).hidden(range(len(LENGTHS)))
    first = 0
    for prompt in prompts(*LENGTHS):
        for chunk in (None, 11):
            alone = seen(model, prompt, chunk)
            for name in together.names:
                assert same(together.of(name)[first : first + len(prompt)], alone.of(name)), name
        first += len(prompt)


@pytest.mark.parametrize("length", [70, 600])
@pytest.mark.parametrize("head_dim", HEADS)
def test_the_stream_after_a_layer_is_the_sum_of_its_parts(head_dim: int, length: int) -> None:
    found = seen(on_gpu(RandomWeights(head_dim)), *prompts(length))
    for index in range(LAYERS):
        names = ("resid_pre", "attn_out", "mlp_out", "resid_post")
        before, attn, mlp, after = (found.of(f"blocks.{index}.hook_{name}") for name in names)
        assert ((before + attn) + mlp - after).norm() <= 1e-6 * after.norm()


@pytest.mark.parametrize("loud", [1.0, 1e6])
@pytest.mark.parametrize("head_dim", HEADS)
def test_sites_have_what_the_reference_has(head_dim: int, loud: float) -> None:
    weights, [prompt] = RandomWeights(head_dim, loud), prompts(150)
    found, wanted = seen(on_gpu(weights), prompt), seen(reference(weights), prompt)
    assert found.names == wanted.names
    for name in wanted.names:
        width = min(found.of(name).shape[-1], wanted.of(name).shape[-1])
        ours, theirs = found.of(name)[..., :width], wanted.of(name)[..., :width]
        if name.endswith("pattern"):
            assert (ours.double().sum(-1) - 1).abs().max() <= 1e-6
            assert (ours - theirs).abs().max() <= ERROR, name
        else:
            error = (ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
            assert error.max() <= ERROR, name


def test_patterns_of_some_rows() -> None:
    class Some(Recorder):
        def pattern_rows(self, layer: int) -> Tensor:
            return super().pattern_rows(layer)[3::7]

    model, [prompt] = on_gpu(RandomWeights(80)), prompts(150)
    few, name = Some(), "blocks.1.attn.hook_pattern"
    Driver(model, [prompt], 1, few).hidden([0])
    assert same(few.of(name), seen(model, prompt).of(name)[3::7])


def change(rows: Tensor) -> None:
    """One that is felt in every row, and in one row otherwise than in the others."""
    factor = torch.linspace(0.5, 1.5, rows[0].numel(), device=rows.device)
    rows.mul_(factor.view(rows.shape[1:]).to(rows.dtype))
    rows[len(rows) // 2] *= -1


@pytest.mark.parametrize("site", WRITABLE, ids=lambda site: site.name)
def test_a_change_does_what_it_does_in_the_reference(site: Site) -> None:
    weights, [prompt] = RandomWeights(80), prompts(70)
    changes = {Place(site, 1 if site.is_in_layer else 0).name: change}
    ours, theirs = on_gpu(weights), reference(weights)
    found = Driver(ours, [prompt], 1, Recorder((), changes)).prefill_logits(0).log_softmax(-1)
    wanted = Driver(theirs, [prompt], 1, Recorder((), changes)).prefill_logits(0).log_softmax(-1)
    plain = Driver(theirs, [prompt], 1).prefill_logits(0).log_softmax(-1)
    assert (found - wanted).abs().max() <= 2e-2
    assert (plain - wanted).abs().max() > 0.1


def test_only_rows_whose_parts_are_changed_lose_their_bits() -> None:
    model, [prompt] = on_gpu(RandomWeights(80)), prompts(70)
    plain, changed = (
        Recorder(),
        Recorder(changes={"blocks.1.hook_attn_out": lambda rows: rows[40].mul_(2)}),
    )
    for recorder in (plain, changed):
        Driver(model, [prompt], 1, recorder).hidden([0])
    one, other = (it.of("blocks.1.hook_resid_post") for it in (plain, changed))
    assert (one != other).any(1).nonzero()[:, 0].tolist() == [40]


ALL = range(2**31)
SIZES = EngineConfig(600, 16, 1024)


def engine_of(weights: RandomWeights, *, is_eager: bool = False) -> Engine:
    with torch.inference_mode():
        model = on_gpu(weights)
        tokenizer = Tokenizer(raw_tokenizer())
        made: Any = ModelRunner if is_eager else make_executor
        return Engine(made(model, SIZES, tokenizer.num_tokens), tokenizer)


def asked(name: str, length: int, **params: Any) -> Request:
    prompt = tuple((7 * i + length) % 250 + 2 for i in range(length))
    wanted = {"max_tokens": 24, "temperature": 0.8, "seed": length, "ignore_eos": True} | params
    return Request(name, prompt, SamplingParams(**wanted))


def steered(name: str, length: int, hidden: int, **params: Any) -> Request:
    """With a change of the stream, and one of z inside a layer."""
    vector = np.linspace(-1, 1, hidden, dtype="f4")
    add = Intervention(Place(RESID_POST, 0), "add", ALL, values=vector)
    heads = Intervention(Place(Z, 1), "zero", ALL, heads=(0,))
    return replace(asked(name, length, **params), interventions=interventions([add, heads]))


def shown(engine: Engine, requests: Sequence[Request]) -> Any:
    """What each one's region has, and its answer."""
    found = Capturing(engine).generate(requests)
    return [(facts(outputs[0]), rows) for outputs, rows in found]


def assert_same(one: Any, other: Any) -> None:
    for (said, rows), (wanted, known) in zip(one, other, strict=True):
        assert said == wanted and same_rows(rows, known)


@pytest.mark.parametrize("length", [40, 600])
def test_the_device_writes_to_the_arena_what_the_host_would(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, begin = engine_of(RandomWeights(64)), CaptureMemory.stream
    assert engine.limits.config is not None
    capture = everything(engine.limits.config)
    wanted = [capturing(asked(str(n), length + n), capture) for n in range(3)]

    def locked(memory: CaptureMemory) -> Any:
        begin(memory)
        memory.settle()
        stream = begin(memory)
        assert stream is not None
        return stream

    monkeypatch.setattr(CaptureMemory, "stream", lambda memory: None)
    by_host = shown(engine, wanted)
    monkeypatch.setattr(CaptureMemory, "stream", locked)
    for _ in range(3):
        assert_same(shown(engine, wanted), by_host)
    engine.close()


def test_graphs_between_taps_have_the_bits_of_eager_passes() -> None:
    weights = RandomWeights(64)
    engine, eager = engine_of(weights), engine_of(weights, is_eager=True)
    hidden, runner = weights.config.hidden_size, engine._executor
    requests = [steered(str(n), 9 * n + 3, hidden, logprobs=[None, 3][n % 2]) for n in range(6)]
    some = everything(weights.config, range(2, 2**31, 3))
    requests[2] = capturing(requests[2], some)
    requests[3] = capturing(asked("3", 70, max_tokens=1), some)
    wanted = shown(eager, requests)
    for _ in range(3):
        assert_same(shown(engine, requests), wanted)
    stretches = runner.prefill._stretches  # type: ignore[union-attr]
    assert len(stretches._graphs) > 3 and stretches._most
    for one, known in zip(requests, wanted, strict=True):
        assert_same(shown(engine, [one]), [known])
    engine.close()
    eager.close()


def test_graphs_that_are_dropped_come_again_with_the_same_bits() -> None:
    weights = RandomWeights(64)
    engine = engine_of(weights)
    stretches: Any = engine._executor.prefill._stretches  # type: ignore[union-attr]
    stretches._most = 2
    one, other = (steered(str(n), 5 + 40 * n, weights.config.hidden_size) for n in range(2))
    wanted = shown(engine, [one, other])
    for _ in range(3):
        assert_same(shown(engine, [one]) + shown(engine, [other]), wanted)
    assert len(stretches._graphs) == 2
    engine.close()


def test_neighbours_of_steered_ones_and_steered_ones_have_the_bits_that_they_have_alone() -> None:
    weights = RandomWeights(64)
    engine, hidden = engine_of(weights), weights.config.hidden_size
    requests = [asked(str(n), 3 + 11 * n, max_tokens=60 + n) for n in range(7)]
    requests += [steered(f"s{n}", 20 + n, hidden, logprobs=[None, 2][n % 2]) for n in range(3)]
    found = together(engine, requests)
    for one in requests:
        assert facts(engine.generate([one])[0][0]) == facts(found[one.request_id])
    engine.check()
    engine.close()
