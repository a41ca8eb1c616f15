"""Log-probabilities, ranks and best tokens on a GPU, against the reference and between slices."""

from __future__ import annotations

import math

import pytest
import torch

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, score_request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.executor.graphs import scores
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.reference.kernels import ReferenceKernels
from tests.gpu.test_triton import RandomWeights, on_gpu
from tests.tokenizer_parts import raw_tokenizer

CPU, DEVICE = torch.device("cpu"), "cuda"


def odd_rows(vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits fp32 [12, vocab] with everything that may go wrong, and targets."""
    logits = 3 * torch.randn(12, vocab, generator=torch.Generator().manual_seed(0))
    logits[1] = 0
    logits[2, 7] = logits[2, vocab - 1] = 30
    logits[3, 5], logits[4, 6], logits[5, vocab - 2] = math.nan, math.inf, -math.inf
    logits[6] = 1e38 * logits[6].sign()
    logits[7, ::2], logits[7, 1::2] = -0.0, 0.0
    logits[8, 3] = logits[8, 4] = 1e-40  # subnormal
    targets = [0, vocab - 1, vocab - 1, 3, 3, 3, 5, 9, 4, -1, vocab, int(logits[11].argmax())]
    return logits, torch.tensor(targets, dtype=torch.int32)


@pytest.mark.parametrize("vocab", [300, 50304])
@pytest.mark.parametrize("num_top", [0, 1, 2, 5, 20, 300])
def test_scores_are_those_of_the_reference(vocab: int, num_top: int) -> None:
    from pythia_bento.model.kernels.gpu.kernels import TritonKernels

    config = ModelConfig(1, 128, 4, 512, vocab, 64, 8)
    logits, targets = odd_rows(vocab)
    want = ReferenceKernels(config, CPU).logprobs(logits, targets, num_top)
    kernels = TritonKernels(config, torch.device("cuda"))
    found = kernels.logprobs(logits.cuda(), targets.cuda(), num_top)
    assert found.ranks.tolist() == want.ranks.tolist()
    assert found.top_ids.tolist() == want.top_ids.tolist()
    sound = want.ranks > 0
    # The normaliser is one fp32 number, so that of huge logits is rounded as they are.
    least = 1e-5 + 2e-7 * logits.abs().amax(1)
    assert ((found.chosen.cpu() - want.chosen).abs() <= least)[sound].all()
    assert ((found.top.cpu() - want.top).abs() <= least[:, None])[sound].all()
    assert found.chosen[~sound].isnan().all() and found.top[~sound].isnan().all()


@pytest.mark.parametrize("count", [3, 12, 20])
def test_rows_in_larger_room_get_what_they_ask_for_alone(count: int) -> None:
    from pythia_bento.model.kernels.gpu.kernels import TritonKernels

    few, targets = odd_rows(300)
    kernels = TritonKernels(ModelConfig(1, 128, 4, 512, 300, 64, 8), torch.device(DEVICE))
    launch, rows = kernels.launch.sampling, 20
    logits = torch.zeros(rows, 300, device=DEVICE)
    logits[:12] = few.to(DEVICE)
    chosen = torch.zeros(rows, dtype=torch.int32, device=DEVICE)
    chosen[:12] = targets.to(DEVICE)
    asked = [0, 3, -1, 2, 1, 0, 5, 5, -1, 1, 2, 4, *[-1] * 8]
    limits = torch.tensor(asked, dtype=torch.int32, device=DEVICE)
    room = launch.scores(rows, 5)._replace(keys=launch.keys(rows))
    room.ranks.fill_(-9)
    found = room.first(count)
    launch.score(logits[:count], chosen, found, limits=limits)
    want = kernels.logprobs(logits[:count], chosen[:count], 5)
    for row, limit in enumerate(asked[:count]):
        if limit < 0:
            assert found.ranks[row] == -9
            continue
        assert found.ranks[row] == want.ranks[row]
        assert same_bits(found.values[row], want.chosen[row])
        assert found.best_ids[row, :limit].tolist() == want.top_ids[row, :limit].tolist()
        assert same_bits(found.best[row, :limit], want.top[row, :limit])


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Of fp32 numbers, where one that is none is like any other."""
    alike = one.view(torch.int32) == other.view(torch.int32)
    return bool((alike | (one.isnan() & other.isnan())).all())


@pytest.mark.parametrize("rows", [37, 128, 300])
def test_scores_without_logits_have_the_bits_of_those_with(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = on_gpu(RandomWeights(64))
    kernels, vocab = model.kernels, model.config.vocab_size
    random = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, model.config.hidden_size, generator=random).to(DEVICE)
    targets = torch.randint(0, vocab, (rows,), generator=random, dtype=torch.int32)
    targets[:2] = torch.tensor([-1, vocab])
    want = kernels.logprobs(model.logits(hidden), targets.to(DEVICE), 1)
    captured = kernels.capturable()
    assert captured is not None
    # In another order, and more rows than are scored at a time.
    monkeypatch.setattr("pythia_bento.model.kernels.gpu.captured.SCORED_AT_ONCE", 128)
    scored = captured.scored_rows(model.weights, hidden.flip(0).contiguous(), 300)
    numbers = torch.arange(rows - 1, -1, -1, dtype=torch.int32)
    scored.asked[: 2 * rows] = torch.cat([numbers, targets]).to(DEVICE)
    scored.run(rows)
    values, ranks, ids, best = scored.found[: 4 * rows].view(4, rows)
    assert ranks.tolist() == want.ranks.tolist() and ranks[:2].tolist() == [0, 0]
    assert same_bits(values.view(torch.float32), want.chosen)
    assert ids.tolist() == want.top_ids[:, 0].tolist()
    assert same_bits(best.view(torch.float32), want.top[:, 0].contiguous())


@pytest.mark.parametrize("num_top", [0, 1, 3])
def test_scores_have_the_same_bits_in_every_slice_and_pass(
    num_top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = on_gpu(RandomWeights(64)), Tokenizer(raw_tokenizer())

    def texts() -> list[Request]:
        lengths = [1, 2, 40, 129, 300, 77, 900]
        prompts = [tuple((7 * n + i) % tokenizer.num_tokens for i in range(n)) for n in lengths]
        return [score_request(prompt, num_top) for prompt in prompts]

    def answers(rows: int, tokens: int) -> list[object]:
        monkeypatch.setattr(scores, "ROWS", (rows,))
        monkeypatch.setattr(type(model.kernels), "scored_at_once", rows)
        sizes = EngineConfig(80, 8, tokens, 2 * tokens)
        engine = Engine(make_executor(model, sizes, tokenizer.num_tokens), tokenizer)
        found = [answer.prompt_logprobs for [answer] in engine.generate(texts())]
        engine.close()
        return found

    whole = answers(512, 4096)
    assert answers(7, 300) == whole
    assert answers(200, 900) == whole


def test_scores_have_the_same_bits_with_and_without_alternatives() -> None:
    model, tokenizer = on_gpu(RandomWeights(80)), Tokenizer(raw_tokenizer())
    engine = Engine(
        make_executor(model, EngineConfig(80, 8, 2048), tokenizer.num_tokens), tokenizer
    )
    prompt = tuple((7 * i) % tokenizer.num_tokens for i in range(900))
    [[graph]], [[eager]] = (engine.generate([score_request(prompt, top)]) for top in (1, 5))
    assert graph.prompt_logprobs is not None and eager.prompt_logprobs is not None
    assert eager.prompt_logprobs.limited(1) == graph.prompt_logprobs
    engine.close()
