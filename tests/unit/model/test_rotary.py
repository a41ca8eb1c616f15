"""Angles of the rotary embedding against the formula in fp64."""

from __future__ import annotations

import torch

from pythia_bento.catalog import SIZES
from pythia_bento.model.rotary import rotary_angles, rotary_tables


def test_angles_are_those_of_the_formula() -> None:
    config = SIZES["410m"].config
    assert rotary_angles(config).shape == (2048, 8)
    for position in (0, 1, 7, 2047):
        for i in range(8):
            wanted = position * 10000.0 ** (-2 * i / 16)
            assert abs(float(rotary_angles(config)[position, i]) - wanted) <= 1e-6 * wanted


def test_tables_are_their_cosines_and_sines() -> None:
    config = SIZES["14m"].config
    cosine, sine = rotary_tables(config)
    assert cosine.is_contiguous()
    assert sine.is_contiguous()
    assert torch.equal(cosine, rotary_angles(config).cos())
    assert (cosine.double() ** 2 + sine.double() ** 2 - 1).abs().max() < 1e-6
