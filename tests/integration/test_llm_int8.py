"""``llm-int8`` is what transformers and bitsandbytes make of a pulled directory, to the last bit.

transformers loads it as any user would. Outliers are looked for over the whole batch, so here
every forward pass holds one sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pythia_bento.catalog import parse
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.reader import WEIGHTS
from pythia_bento.engine.outputs import raise_error
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.kernels.reference import linear
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.forward import Driver
from tests.integration.conftest import bento_home_in, hub_in
from tests.later import transformers
from tests.models import random_checkpoint
from tests.taps import Recorder
from tests.their_sites import watched
from tests.unit.runtime.toy_runner import ask

pytestmark = pytest.mark.no_cover  # what it runs others run too, and half as fast it would be long

REPO, MODEL = "EleutherAI/pythia-14m", "pythia-14m"
SHAPES = {  # layers, heads, head_dim
    "head_dim_24": (2, 3, 24),
    "head_dim_32": (3, 4, 32),
    "head_dim_80": (2, 2, 80),
    "head_dim_256": (2, 1, 256),
}


class Pair(NamedTuple):
    """A pulled model here and in transformers, on one device."""

    ours: GPTNeoX
    theirs: transformers.PreTrainedModel


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=[*SHAPES, "bundled"])
def pulled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bundled":
        origin = load_checkpoint("bundled@main").path
    else:
        layers, heads, head_dim = SHAPES[request.param]
        origin = folder / "origin"
        random_checkpoint(origin, layers=layers, heads=heads, head_dim=head_dim)
        add_outliers(origin)
    with hub_in(folder) as hub, bento_home_in(folder):
        hub.folder.commit(REPO, "main", origin)
        yield pull(parse(MODEL)).model.path


@pytest.fixture(scope="module")
def pair(pulled: Path, device: str) -> Pair:
    checkpoint = load_checkpoint(MODEL)
    assert checkpoint.path == pulled
    backend = create("reference", checkpoint.config, torch.device(device), "llm-int8")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(pulled, device_map=device)
    return Pair(GPTNeoX(checkpoint.source, backend), theirs)


def add_outliers(path: Path) -> None:
    """Channels far beyond the threshold, as trained models have them."""
    tensors = load_file(path / WEIGHTS)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor[::17] *= 6
    save_file(tensors, path / WEIGHTS, metadata={"format": "pt"})


def prompt(length: int) -> list[int]:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(2, 260, (length,), generator=generator).tolist()


@torch.no_grad()
def their_logits(
    model: transformers.PreTrainedModel, ids: list[int], chunk: int | None = None
) -> Tensor:
    """fp32 [tokens, V]; after the first chunk, transformers' cache holds what came before."""
    parts, cache = [], None
    for part in torch.tensor([ids], device=model.device).split(chunk or len(ids), dim=1):
        output = model(part, past_key_values=cache)
        cache = output.past_key_values
        parts.append(output.logits[0].float().cpu())
    return torch.cat(parts)


def greedy(model: transformers.PreTrainedModel, ids: list[int], count: int) -> list[int]:
    """What ``generate`` appends."""
    start = torch.tensor([ids], device=model.device)
    output = model.generate(start, max_new_tokens=count, do_sample=False, eos_token_id=-1)
    tokens: list[int] = output[0, len(ids) :].tolist()
    return tokens


def test_transformers_loads_it_in_fp16(pulled: Path) -> None:
    """Without arguments, which is what ``llm-int8`` follows."""
    model = transformers.AutoModelForCausalLM.from_pretrained(pulled)
    assert model.is_loaded_in_8bit
    assert model.dtype == torch.float16
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("length", [1, 37, 200])
def test_logits_are_equal(pair: Pair, length: int) -> None:
    ours = Driver(pair.ours, [prompt(length)], room=1).prefill_logits(0)
    assert torch.equal(ours, their_logits(pair.theirs, prompt(length)))


@pytest.mark.parametrize("chunk", [1, 11])
def test_logits_are_equal_in_pieces(pair: Pair, chunk: int) -> None:
    ours = Driver(pair.ours, [prompt(37)], room=1).prefill_logits(0, chunk)
    assert torch.equal(ours, their_logits(pair.theirs, prompt(37), chunk))


def test_the_inside_is_equal(pair: Pair) -> None:
    """At every site but the patterns, which torch's fused attention does not give."""
    recorder = Recorder()
    ours = Driver(pair.ours, [prompt(37)], room=1, taps=recorder).prefill_logits(0)
    with watched(pair.theirs) as found:
        assert torch.equal(ours, their_logits(pair.theirs, prompt(37)))
    assert found.keys() == {name for name in recorder.names if not name.endswith("pattern")}
    assert [n for n, x in found.items() if not torch.equal(recorder.of(n), x.float().cpu())] == []


def test_64_greedy_tokens_are_equal(pair: Pair) -> None:
    [ours] = Driver(pair.ours, [prompt(37)], room=64).greedy(64, pair.ours.config.vocab_size)
    assert ours == greedy(pair.theirs, prompt(37), 64)


def test_the_models_have_outliers(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would say nothing about the columns that are computed in fp16."""
    monkeypatch.setattr(linear, "THRESHOLD", 0.0)
    without = Driver(pair.ours, [prompt(37)], room=1).prefill_logits(0)
    assert not torch.equal(without, their_logits(pair.theirs, prompt(37)))


@pytest.mark.parametrize("pulled", ["bundled"], indirect=True)
def test_the_served_model_answers_as_transformers(pulled: Path) -> None:
    """Through the engine: tokens, and log-probabilities of the prompt."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(pulled, device_map="cpu")
    settings = Settings(model=MODEL, device="cpu", matmul="llm-int8", max_batch_size=2)
    ids = prompt(37)
    with PythiaRunner.load(settings) as runner:
        request = ask(tuple(ids), max_tokens=20, temperature=0.0, prompt_logprobs=0)
        [[result]] = runner.complete_sync([request])
    answer = raise_error(result)
    assert list(answer.token_ids) == greedy(theirs, ids, 20)
    logprobs = their_logits(theirs, ids).log_softmax(-1)
    assert [found.logprob for found in answer.prompt_logprobs] == [
        logprobs[row, token].item() for row, token in enumerate(ids[1:])
    ]
