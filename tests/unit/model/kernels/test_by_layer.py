"""Passes with taps: the bits of passes without, and at each site the same bits however computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pythia_bento.model import sites
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create, tapped
from pythia_bento.model.sites import SITES, Site
from tests.forward import Driver
from tests.integration.engine_parts import RandomWeights
from tests.taps import Recorder

LAYERS, VOCAB = 2, 300
SHAPES = {"hidden_128": (4, 32), "hidden_240": (3, 80), "hidden_512": (2, 256)}
LENGTHS = (1, 16, 37, 5)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def model_of(backend: str, heads: int, head_dim: int, matmul: str = "w8a16") -> GPTNeoX:
    hidden = heads * head_dim
    config = ModelConfig(LAYERS, hidden, heads, 4 * hidden, VOCAB, 64, head_dim // 4)
    kernels = create(backend, config, torch.device("cpu"), matmul)
    return GPTNeoX(RandomWeights(config), kernels)


@pytest.fixture(scope="module", params=SHAPES)
def cpu(request: pytest.FixtureRequest) -> GPTNeoX:
    return model_of("cpu", *SHAPES[request.param])


@pytest.fixture(scope="module", params=["cpu", "reference", "llm-int8"])
def model(request: pytest.FixtureRequest) -> GPTNeoX:
    if request.param == "llm-int8":
        return model_of("reference", 4, 32, "llm-int8")
    return model_of(request.param, 4, 32)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(VOCAB, (length,), generator=generator).tolist() for length in LENGTHS]


def bits(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.int32)


def pass_of(model: GPTNeoX, taps: Recorder | None) -> Tensor:
    """All prompts in one pass."""
    return Driver(model, prompts(), 1, taps).hidden(range(len(LENGTHS)))


@pytest.fixture(scope="module")
def plain(model: GPTNeoX) -> Tensor:
    """What a pass without taps gives."""
    return pass_of(model, None)


@pytest.mark.parametrize("wanted", [SITES, *((site,) for site in SITES)], ids=len)
def test_taps_change_no_bit(model: GPTNeoX, plain: Tensor, wanted: tuple[Site, ...]) -> None:
    recorder = Recorder(wanted)
    assert torch.equal(pass_of(model, recorder), plain)
    assert {name.split(".", 2)[-1] for name in recorder.names} >= {
        site.name for site in wanted if site.is_in_layer
    }
    assert len(recorder.names) == sum(LAYERS if site.is_in_layer else 1 for site in wanted)


def test_taps_that_want_nothing_are_not_called(model: GPTNeoX, plain: Tensor) -> None:
    recorder = Recorder(())
    assert torch.equal(pass_of(model, recorder), plain)
    assert recorder.names == []


def test_places_come_in_the_order_in_which_they_are_computed(model: GPTNeoX) -> None:
    recorder = Recorder()
    pass_of(model, recorder)
    layer = (sites.RESID_PRE, sites.Q, sites.K, sites.V, sites.POST, sites.PATTERN, sites.Z)
    layer += (sites.ATTN_OUT, sites.MLP_OUT, sites.RESID_POST)
    wanted = [f"blocks.{index}.{site.name}" for index in range(LAYERS) for site in layer]
    assert recorder.names == ["hook_embed", *wanted, "ln_final.hook_normalized"]


def test_the_stream_after_a_layer_is_the_sum_of_its_parts(cpu: GPTNeoX) -> None:
    recorder = Recorder()
    pass_of(cpu, recorder)
    for index in range(LAYERS):
        names = ("resid_pre", "attn_out", "mlp_out", "resid_post")
        before, attn, mlp, after = (recorder.of(f"blocks.{index}.hook_{name}") for name in names)
        assert torch.equal(bits((before + attn) + mlp), bits(after))


def test_rows_do_not_depend_on_others_or_on_chunks(cpu: GPTNeoX) -> None:
    together = Recorder()
    pass_of(cpu, together)
    first = 0
    for index, length in enumerate(LENGTHS):
        alone, chunked = Recorder(), Recorder()
        Driver(cpu, prompts(), 1, alone).prefill_logits(index)
        Driver(cpu, prompts(), 1, chunked).prefill_logits(index, 11)
        for name in together.names:
            rows = together.of(name)[first : first + length]
            for other in (alone, chunked):
                assert_same(rows, other.of(name), name)
        first += length


def assert_same(one: Tensor, other: Tensor, name: str) -> None:
    """Patterns may be of different widths: beyond the narrower one there must be nothing."""
    width = min(one.shape[-1], other.shape[-1])
    assert torch.equal(bits(one[..., :width]), bits(other[..., :width])), name
    assert not one[..., width:].any() and not other[..., width:].any(), name


def test_patterns_are_the_weights_of_the_values(model: GPTNeoX) -> None:
    recorder, length = Recorder(), LENGTHS[2]
    Driver(model, prompts(), 1, recorder).prefill_logits(2)
    bound = 1e-3 if model.kernels.matmul == "llm-int8" else 1e-6
    for index in range(LAYERS):
        weights, values, z = (
            recorder.of(f"blocks.{index}.attn.hook_{name}").double()
            for name in ("pattern", "v", "z")
        )
        found = torch.einsum("qhk,khd->qhd", weights[..., :length], values)
        assert (found - z).norm() <= bound * z.norm()


def test_patterns_come_in_pieces(model: GPTNeoX, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "blocks.1.attn.hook_pattern"
    whole, pieces = Recorder(), Recorder()
    pass_of(model, whole)
    monkeypatch.setattr(tapped, "PIECE_BYTES", 7 * 4 * 4 * 48)  # seven rows of four heads
    pass_of(model, pieces)
    assert len(whole._seen[name]) == 1 < len(pieces._seen[name])
    assert torch.equal(bits(whole.of(name)), bits(pieces.of(name)))


class Some(Recorder):
    """Wants the patterns of some rows; their tensor has gaps."""

    def pattern_rows(self, layer: int) -> Tensor:
        return super().pattern_rows(layer)[3::7]


def test_patterns_of_some_rows_are_those_among_all(model: GPTNeoX) -> None:
    name = "blocks.1.attn.hook_pattern"
    few, all_rows = Some(), Recorder()
    for recorder in (few, all_rows):
        pass_of(model, recorder)
    assert torch.equal(bits(few.of(name)), bits(all_rows.of(name)[3::7]))


def test_what_the_head_multiplies(model: GPTNeoX) -> None:
    recorder = Recorder((sites.NORMALIZED,))
    hidden = pass_of(model, recorder)
    found = model.normalised(hidden)
    assert found.dtype == torch.float32
    assert torch.equal(recorder.of("ln_final.hook_normalized"), found)
    norm = RandomWeights(model.config)  # in the order in which the model was packed
    for part in norm.order():
        if part == "head":
            head = norm.head()
            break
        norm.embedding()
    x = hidden.double()
    want = torch.nn.functional.layer_norm(
        x, x.shape[-1:], head.norm.weight.double(), head.norm.bias.double()
    )
    assert (found - want).abs().max() <= (1e-2 if model.kernels.matmul == "llm-int8" else 1e-5)


def test_a_change_is_seen_by_what_follows_and_by_nothing_else(cpu: GPTNeoX) -> None:
    plain = Recorder()
    pass_of(cpu, plain)
    row = 1 + 16 + 20  # of the third prompt
    changed = Recorder(changes={"blocks.0.hook_resid_post": lambda rows: rows[row].mul_(2)})
    pass_of(cpu, changed)
    assert torch.equal(plain.of("blocks.0.hook_resid_post"), changed.of("blocks.0.hook_resid_post"))
    before, after = (it.of("blocks.1.hook_resid_pre") for it in (plain, changed))
    before[row] *= 2
    assert torch.equal(bits(before), bits(after))
    ends = [it.of("blocks.1.hook_resid_post") for it in (plain, changed)]
    differs = (ends[0] != ends[1]).any(1).nonzero()[:, 0].tolist()
    assert differs[0] == row and len(differs) > 1  # some look away
    assert differs[-1] < 1 + 16 + 37
