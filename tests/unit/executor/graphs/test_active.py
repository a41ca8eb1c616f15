"""The place that graphs know, and whose weights are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pythia_bento.executor.graphs.active import ActiveWeights
from pythia_bento.model.kernels.base import PackedWeights, Slab
from pythia_bento.model.kernels.gpu.slab import contiguous
from tests.unit.model.kernels.gpu.packed import packed


@pytest.fixture(autouse=True)
def as_an_engine_does() -> Iterator[None]:
    with torch.inference_mode():
        yield


def resident(number: int) -> PackedWeights:
    return contiguous(packed(number), bytes([number]) * 32)


def active(weights: PackedWeights) -> ActiveWeights:
    model: Any = SimpleNamespace(weights=weights, kernels=SimpleNamespace(contiguous=contiguous))
    return ActiveWeights(model)


def memory(weights: PackedWeights) -> torch.Tensor:
    assert weights.slab is not None
    return weights.slab.memory


def test_weights_are_brought_to_where_the_first_ones_were() -> None:
    one, two = resident(1), resident(2)
    place = active(one)
    known = place.weights
    assert memory(known).data_ptr() != memory(one).data_ptr()
    for weights in (two, one, two):
        assert place.bring(weights)
        assert place.weights is known
        assert torch.equal(known.layers[1].w_in, weights.layers[1].w_in)
        assert torch.equal(memory(known), memory(weights))
    assert not torch.equal(memory(one), memory(two))  # nothing was written to those


def test_what_is_there_is_not_copied_again() -> None:
    one = resident(1)
    place = active(one)
    memory(place.weights)[-1] += 1
    assert place.bring(one)
    assert place.bring(resident(1))  # read again: another place, and the same weights
    assert not torch.equal(memory(place.weights), memory(one))


def test_other_scalars_are_for_others_to_compute(caplog: pytest.LogCaptureFixture) -> None:
    one, two = resident(1), packed(2)
    loud = replace(two.layers[0], gelu_scale=0.5)
    other = contiguous(replace(two, layers=[loud, two.layers[1]]), b"o" * 32)
    place = active(one)
    assert not place.bring(other) and not place.bring(other)
    assert torch.equal(memory(place.weights), memory(one))
    [record] = caplog.records
    assert record.message.startswith("a checkpoint is computed without graphs")
    assert place.bring(resident(2))


def test_one_model_has_no_copy_and_no_proof() -> None:
    weights = packed(1)
    place = active(weights)
    assert place.weights is weights and place.proof() is None
    assert place.bring(weights)
    assert not place.bring(packed(2))


def test_a_proof_fails_where_others_have_computed() -> None:
    one, two = resident(1), resident(2)
    place = active(one)
    proof = place.proof()
    assert proof is not None
    proof.copy()
    place.bring(two)
    proof.check()  # it is of when it was copied
    proof.copy()
    proof.check()
    slab = place.weights.slab
    assert isinstance(slab, Slab)
    slab.memory.copy_(memory(one))  # behind its back
    proof.copy()
    with pytest.raises(RuntimeError, match=r"weights 010101010101 have computed .* 020202020202"):
        proof.check()
