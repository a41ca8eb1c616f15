"""What rows ask for besides temperature, on the device: against the definition, and in company."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.gpu.invariance import facts, together
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.executor.graphs import options as graph_options
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sampling import candidates, penalised
from pythia_bento.model.sampling_row import Penalties, SamplingRow
from tests.gpu.test_triton import RandomWeights, on_gpu
from tests.tokenizer_parts import raw_tokenizer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LARGEST = 3.4028234663852886e38  # of fp32; a banned token has its negative


def odd_logits(rows: int, vocab: int) -> torch.Tensor:
    """Logits fp32 [rows, vocab]: many equal, all equal, signed zeros, subnormal, huge, none."""
    logits = 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(rows))
    logits[3] = 0
    logits[7] = logits[7].round()
    logits[8] = 40 * (logits[8] / 2).round()
    logits[9, ::2], logits[9, 1::2] = -0.0, 0.0
    logits[10] *= 1e-40
    logits[11] *= 1e30
    logits[12, vocab - 3], logits[13, 5], logits[14, 6] = math.nan, math.inf, -math.inf
    return logits


def odd_rows(rows: int, vocab: int, num_tokens: int) -> list[SamplingRow]:
    """Every option, alone and with others."""
    draw = random.Random(rows + vocab)

    def penalties() -> Penalties:
        ids = np.array(draw.sample(range(vocab), draw.randint(0, 60)), np.int32)
        counts = np.array([draw.randint(0, 4) for _ in ids], np.int32)
        repetition, frequency = draw.choice([1.0, 1.5, 0.625]), draw.choice([0.0, 0.75])
        return Penalties(repetition, frequency, -0.5, ids, counts)

    return [
        SamplingRow(
            position=index,
            temperature=draw.choice([0.0, 0.5, 1.0, 1.3]),
            top_k=draw.choice([0, 0, 1, 5, 40, num_tokens - 1, num_tokens]),
            top_p=draw.choice([1.0, 1.0, 0.95, 0.6, 0.01]),
            min_p=draw.choice([0.0, 0.0, 0.1]),
            seed=index,
            bias=draw.choice([(), ((3, 1.5), (num_tokens + 2, 9.0)), ((7, -math.inf),)]),
            penalties=draw.choice([None, penalties()]),
        )
        for index in range(rows)
    ]


def wanted(logits: torch.Tensor, row: SamplingRow) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition's values fp32 [n] and which of them may be chosen, bool [n]."""
    raw = logits.clone()
    for token, value in row.bias:
        if token < len(raw):
            raw[token] += value
    raw = penalised(raw, row.penalties)
    if row.temperature == 0:
        return raw, torch.ones(len(raw), dtype=torch.bool)
    z = raw / row.temperature
    stays = torch.zeros(len(raw), dtype=torch.bool)
    stays[candidates(z, row)] = True
    return z, stays


@pytest.mark.parametrize("vocab, count", [(307, 96), (50304, 32)])
def test_candidates_are_those_of_the_definition(vocab: int, count: int) -> None:
    from pythia_bento.model.kernels.gpu.launch_options import OptionsLauncher
    from pythia_bento.model.kernels.gpu.row_options import row_options

    num_tokens = vocab - 7
    logits, rows = odd_logits(count, vocab), odd_rows(count, vocab, num_tokens)
    options = row_options(rows, DEVICE)
    assert options is not None
    launch = OptionsLauncher(ModelConfig(1, 128, 4, 512, vocab, 64, 8), DEVICE)
    found = launch.room(options)
    temperatures = torch.tensor([row.temperature for row in rows], device=DEVICE)
    positions = torch.arange(count, dtype=torch.int32, device=DEVICE)
    launch.prepare(logits.to(DEVICE), options, found, positions, temperatures, num_tokens)
    for index, row in enumerate(rows):
        if not options.active[index]:
            assert found.status[index] == 0
            continue
        assert found.status[index] == (2 if index in (12, 13, 14) else 1)
        if index in (12, 13, 14):
            continue
        values, stays = wanted(logits[index, :num_tokens], row)
        got = found.z[index, :num_tokens].cpu()
        values = torch.where(values == -math.inf, got.clamp(max=-LARGEST / 2), values)
        dropped = got == -math.inf  # by top-k, before top-p
        assert torch.equal(got[~dropped], values[~dropped])
        assert not stays[dropped].any()
        order = _order(got)
        floor, last = int(found.floor[index]), int(found.last[index])
        kept = (order > floor) | ((order == floor) & (torch.arange(num_tokens) <= last))
        if row.min_p > 0 and row.temperature > 0:
            kept &= (got - float(found.best[index])).exp() >= row.min_p
        assert torch.equal(kept, stays), row


def test_rows_without_a_finite_logit_fail_and_end() -> None:
    """A search among them that found nothing would never end."""
    from pythia_bento.model.kernels.gpu.launch_options import OptionsLauncher
    from pythia_bento.model.kernels.gpu.row_options import row_options

    vocab = 307
    logits = torch.randn(6, vocab, generator=torch.Generator().manual_seed(1))
    logits[0], logits[1], logits[2], logits[3, 7] = math.nan, math.inf, -math.inf, math.inf
    logits[4] = 3e38  # finite, but not after the division
    options = row_options([SamplingRow(0, 0.5, top_k=40, top_p=0.9)] * 6, DEVICE)
    assert options is not None
    launch = OptionsLauncher(ModelConfig(1, 128, 4, 512, vocab, 64, 8), DEVICE)
    found = launch.room(options)
    positions = torch.zeros(6, dtype=torch.int32, device=DEVICE)
    launch.prepare(
        logits.to(DEVICE), options, found, positions, torch.full((6,), 0.5, device=DEVICE), 300
    )
    assert found.status.tolist() == [2, 2, 2, 2, 1, 1]
    assert found.last[4] == 35  # the first nine tenths of the first 40


def _order(values: torch.Tensor) -> torch.Tensor:
    bits = (values + 0.0).view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def test_what_is_recalled_is_what_the_steps_would_have_kept() -> None:
    from pythia_bento.model.kernels.gpu.launch_options import OptionsLauncher
    from pythia_bento.model.kernels.gpu.row_options import row_options

    vocab, prompt, length = 64, 9, 40
    penalties = Penalties(1.5, 0.25, 0.5, np.zeros(0, np.int32), np.zeros(0, np.int32))
    tokens = torch.randint(0, 12, (2, length), generator=torch.Generator().manual_seed(4))
    tokens = tokens.to(DEVICE, torch.int32)
    launch = OptionsLauncher(ModelConfig(1, 128, 4, 512, vocab, 64, 8), DEVICE)
    logits = torch.randn(2, vocab, generator=torch.Generator().manual_seed(5)).to(DEVICE)
    zeros = torch.zeros(2, device=DEVICE)

    def options() -> Any:
        made = row_options([SamplingRow(0, 0.0, penalties=penalties)] * 2, DEVICE)
        assert made is not None
        seen = torch.zeros(3, 2, 64, dtype=torch.int32, device=DEVICE)
        lens = torch.full((2,), prompt, dtype=torch.int32, device=DEVICE)
        return replace(made, seen=seen, prompt_lens=lens)

    def step(options: Any, at: int) -> torch.Tensor:
        """The values after ``tokens[:, : at + 1]``."""
        found = launch.room(options)
        lens = torch.full((2,), at + 1, dtype=torch.int32, device=DEVICE)
        inputs = tokens[:, at].contiguous()
        launch.prepare(logits, options, found, lens, zeros, vocab, inputs=inputs)
        return found.z

    by_steps, rows = options(), torch.tensor([0, 1], dtype=torch.int32, device=DEVICE)
    for at in range(length):
        values = step(by_steps, at)
        told = options()
        lengths = torch.full((2,), at, dtype=torch.int32, device=DEVICE)
        launch.recall(tokens[:, : max(at, 1)].contiguous(), rows, lengths, told)
        assert torch.equal(step(told, at), values)
        for row in range(2):
            known = tokens[row, : at + 1].tolist()
            ids = np.array(sorted(set(known)), np.int32)
            counts = np.array([known[prompt:].count(i) for i in ids], np.int32)
            want = penalised(logits[row].cpu(), Penalties(1.5, 0.25, 0.5, ids, counts))
            assert torch.equal(values[row].cpu(), want)
    # A step that was forgotten comes again, with all later ones there already.
    assert torch.equal(step(by_steps, 20), step(options_after(launch, options(), tokens, 20), 20))


def options_after(launch: Any, options: Any, tokens: torch.Tensor, length: int) -> Any:
    """``options`` that have seen the first ``length`` tokens."""
    rows = torch.tensor([0, 1], dtype=torch.int32, device=DEVICE)
    lengths = torch.full((2,), length, dtype=torch.int32, device=DEVICE)
    launch.recall(tokens[:, :length].contiguous(), rows, lengths, options)
    return options


def requests(count: int, seed: int) -> list[Request]:
    """Requests with every option, some with none."""
    draw = random.Random(seed)
    found = []
    for index in range(count):
        new = draw.randint(1, 60)
        params = SamplingParams(
            max_tokens=new,
            min_tokens=draw.choice([0, 0, min(new, 10)]),
            temperature=draw.choice([0.0, 0.7, 1.3]),
            top_k=draw.choice([0, 0, 1, 40]),
            top_p=draw.choice([1.0, 0.9, 0.5]),
            min_p=draw.choice([0.0, 0.05]),
            repetition_penalty=draw.choice([1.0, 1.0, 1.3]),
            frequency_penalty=draw.choice([0.0, 0.0, 0.7]),
            presence_penalty=draw.choice([0.0, 0.0, -0.4]),
            logprobs=draw.choice([None, 0, 1, 5, 20]),
            logit_bias=draw.choice([(), (), ((5, 3.0), (77, -100.0))]),
            seed=draw.getrandbits(63),
            ignore_eos=draw.random() < 0.7,
        )
        prompt = tuple(draw.randrange(1, 200) for _ in range(draw.randint(1, 150)))
        found.append(Request(f"r{index}", prompt, params))
    return found


def test_no_request_waits_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine launches is there when it is, for any number of rows, biases and tokens."""
    from triton import knobs
    from triton.runtime.jit import JITFunction

    from pythia_bento.model.kernels.gpu.triton import options, sampling, scoring

    for module in (options, sampling, scoring):  # as in a process that has compiled nothing yet
        for kernel in vars(module).values():
            if isinstance(kernel, JITFunction):
                kernel.device_caches.clear()
    model, tokenizer = on_gpu(RandomWeights(64)), Tokenizer(raw_tokenizer())
    sizes = EngineConfig(600, 16, 512)
    compiled: list[str] = []

    def note(*, repr: str, **_: Any) -> None:
        compiled.append(repr)

    monkeypatch.setattr(knobs.runtime, "jit_post_compile_hook", note)
    engine = Engine(make_executor(model, sizes, tokenizer.num_tokens), tokenizer)
    assert compiled  # the hook is called
    compiled.clear()
    together(engine, requests(60, 5))
    engine.close()
    assert not compiled


@pytest.mark.parametrize("blocks", [600, 26])
def test_captured_steps_have_the_bits_of_eager_ones(
    blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few blocks sequences are preempted; alone each has a fresh history."""
    model, tokenizer = on_gpu(RandomWeights(64)), Tokenizer(raw_tokenizer())

    def engine(blocks: int) -> Engine:
        sizes = EngineConfig(blocks, 16, 512)
        return Engine(make_executor(model, sizes, tokenizer.num_tokens), tokenizer)

    asked = requests(60, blocks)
    ahead = engine(blocks)
    answers = together(ahead, asked)
    ahead.check()
    single = engine(600)
    for request in asked:
        [[alone]] = single.generate([request])
        assert facts(alone) == facts(answers[request.request_id])
    monkeypatch.setattr(graph_options, "MOST_BIASES", -1)  # so that nothing fits
    eager = engine(600)
    for request in asked:
        [[alone]] = eager.generate([request])
        assert facts(alone) == facts(answers[request.request_id])
    for used in (ahead, single, eager):
        used.close()
