"""Every site against what transformers has there, with the dequantised weights in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.sites import SITES, Place, Site
from tests.forward import Driver
from tests.pairs import Pair, pair_of
from tests.taps import Recorder
from tests.their_sites import all_names, all_sites, watched

pytestmark = pytest.mark.no_cover  # what it runs others run too, and half as fast it would be long

BACKENDS = ("reference", "cpu")
SHAPES = {"head_dim_80": (3, 3, 80), "head_dim_256": (2, 1, 256), "hidden_512": (2, 8, 64)}
FINE, COARSE = 1e-5, 5e-4  # error of a row: with activations of 31 bits, and of 15
CHANGED_LAYER = 1
WRITABLE = [site for site in SITES if site.is_writable]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[*SHAPES, "bundled"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pair = pair_of(SHAPES.get(request.param), tmp_path_factory)
    pair.theirs.set_attn_implementation("eager")  # the only one that gives its weights
    return pair


@pytest.fixture(scope="module", params=BACKENDS)
def model(request: pytest.FixtureRequest, pair: Pair) -> GPTNeoX:
    source = load_checkpoint(str(pair.path)).source
    return GPTNeoX(source, create(request.param, source.config, torch.device("cpu")))


@pytest.fixture(scope="module")
def unchanged(model: GPTNeoX) -> Tensor:
    """Log-probabilities of the prompt when nothing is changed."""
    return Driver(model, [prompt()], 1).prefill_logits(0).log_softmax(-1)


def prompt() -> list[int]:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(2, 260, (45,), generator=generator).tolist()


def bound(model: GPTNeoX) -> float:
    is_fine = model.kernels.name == "reference" or model.config.hidden_size < 512
    return FINE if is_fine else COARSE


def row_errors(ours: Tensor, theirs: Tensor) -> Tensor:
    """Relative, of each row."""
    difference = (ours - theirs).flatten(1).norm(dim=1)
    return difference / theirs.flatten(1).norm(dim=1)


@pytest.mark.parametrize("chunk", [None, 11])
def test_every_site_has_what_transformers_has(
    pair: Pair, model: GPTNeoX, chunk: int | None
) -> None:
    recorder = Recorder()
    Driver(model, [prompt()], 1, recorder).prefill_logits(0, chunk)
    wanted = all_sites(pair.theirs, prompt())
    assert set(recorder.names) == all_names(model.config.num_layers)
    errors = {}
    for name, theirs in wanted.items():
        ours = recorder.of(name)
        if name.endswith("pattern"):
            assert not ours[..., len(prompt()) :].any()
            errors[name] = (ours[..., : len(prompt())] - theirs).abs().max().item()
        else:
            assert ours.shape == theirs.shape
            errors[name] = row_errors(ours, theirs).max().item()
    assert {n: e for n, e in errors.items() if not e <= bound(model)} == {}


def test_a_row_attends_to_itself_and_what_is_before_it(model: GPTNeoX) -> None:
    recorder = Recorder()
    Driver(model, [prompt()], 1, recorder).hidden([0])
    for layer in range(model.config.num_layers):
        weights = recorder.of(f"blocks.{layer}.attn.hook_pattern")
        assert (weights.double().sum(-1) - 1).abs().max() <= 1e-6
        for position, row in enumerate(weights):
            assert not row[:, position + 1 :].any()


def change(rows: Tensor) -> None:
    """One that is felt in every row, and in one row otherwise than in the others."""
    rows.mul_(torch.linspace(0.5, 1.5, rows[0].numel()).view(rows.shape[1:]))
    rows[len(rows) // 2] *= -1


@pytest.mark.parametrize("site", WRITABLE, ids=lambda site: site.name)
def test_a_change_in_place_does_what_it_does_in_transformers(
    pair: Pair, model: GPTNeoX, unchanged: Tensor, site: Site
) -> None:
    place = Place(site, CHANGED_LAYER if site.is_in_layer else 0)
    changes = {place.name: change}
    ours = Driver(model, [prompt()], 1, Recorder((), changes)).prefill_logits(0)
    with torch.no_grad(), watched(pair.theirs, changes):
        theirs = pair.theirs(torch.tensor([prompt()]), use_cache=False).logits[0]
    difference = (ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max()
    assert difference <= 1e-3
    assert (ours.log_softmax(-1) - unchanged).abs().max() > 0.05  # so that it was felt
