"""Every backend against transformers running the dequantised weights in fp32."""

from __future__ import annotations

import pytest
import torch

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from tests.forward import Driver
from tests.pairs import Pair, pair_of

BACKENDS = [  # name, device
    ("reference", "cpu"),
    ("cpu", "cpu"),
    pytest.param(("reference", "cuda"), marks=pytest.mark.gpu),
]
SHAPES = {"head_dim_32": (3, 4, 32), "head_dim_80": (2, 2, 80), "head_dim_256": (2, 1, 256)}
TOLERANCE = 1e-3  # of a log-probability


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[*SHAPES, "bundled"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(SHAPES.get(request.param), tmp_path_factory)


@pytest.fixture(params=BACKENDS, ids="-".join)
def model(request: pytest.FixtureRequest, pair: Pair) -> GPTNeoX:
    name, device = request.param
    source = load_checkpoint(str(pair.path)).source
    return GPTNeoX(source, create(name, source.config, torch.device(device)))


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(2, 260, (length,), generator=generator).tolist() for length in (1, 16, 37)
    ]


@pytest.mark.parametrize("chunk", [None, 11])
def test_log_probabilities_agree(pair: Pair, model: GPTNeoX, chunk: int | None) -> None:
    differences = []
    for index, prompt in enumerate(prompts()):
        ours = Driver(model, prompts(), room=1).prefill_logits(index, chunk)
        with torch.no_grad():
            theirs = pair.theirs(torch.tensor([prompt])).logits[0]
        assert ours.shape == theirs.shape
        difference = ours.log_softmax(-1) - theirs.log_softmax(-1)
        differences.append(difference.abs().max().item())
    assert max(differences) <= TOLERANCE, differences


@torch.no_grad()
def test_64_greedy_tokens_are_equal(pair: Pair, model: GPTNeoX) -> None:
    """Here all prompts run in one batch. Theirs is what is best after each token of ours: as long
    as all were equal, that is what they go on with too."""
    ours = Driver(model, prompts(), room=64).greedy(64, model.config.vocab_size)
    for prompt, tokens in zip(prompts(), ours, strict=True):
        logits = pair.theirs(torch.tensor([prompt + tokens[:-1]])).logits[0]
        assert logits[len(prompt) - 1 :].argmax(-1).tolist() == tokens
        assert len(tokens) == 64
