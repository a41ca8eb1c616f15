"""Passes with taps on a GPU: their bits, and what they show beside the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.sites import SITES, Place, Site
from tests.forward import Driver
from tests.gpu.test_triton import HEADS, VOCAB, RandomWeights, on_gpu
from tests.taps import Recorder

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
