from __future__ import annotations

import pytest

from pythia_bento.model.kernels.gpu import tiles

HOPPER, AMPERE = 232_448, 101_376  # bytes of shared memory that a program may have


@pytest.mark.parametrize(
    "rows, head_dim, stages",
    [(128, 256, 5), (256, 64, 5), (512, 256, 3), (512, 80, 3), (512, 64, 2)],
)
def test_few_programs_load_further_ahead(rows: int, head_dim: int, stages: int) -> None:
    assert tiles.decode_stages(rows, head_dim, HOPPER) == stages


def test_stages_for_which_there_is_no_room_are_not_taken() -> None:
    assert tiles.decode_stages(128, 256, AMPERE) == 2
