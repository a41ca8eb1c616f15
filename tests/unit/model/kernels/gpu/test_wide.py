"""Where weights stay widened, and for how long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from pythia_bento.catalog import SIZES
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.wide import WideWeights, kept_bytes

CONFIG = ModelConfig(2, 8, 2, 32, 64, 64, 2)
FIRST, SECOND = 8 * (3 * 8 + 32), 8 * (8 + 32)


class Widening:
    """Writes which of the two products has been widened, and counts."""

    config = CONFIG
    count = 0

    def widen_in(self, layer: Any, out: torch.Tensor) -> None:
        self.count += 1
        out[:FIRST] = 1

    def widen_out(self, layer: Any, out: torch.Tensor) -> None:
        self.count += 1
        out[:SECOND] = 2


def weights(*, keeps: bool) -> tuple[Widening, WideWeights]:
    launch: Any = Widening()
    return launch, WideWeights(launch, torch.device("cpu"), keeps=keeps)


def layer() -> Any:
    return SimpleNamespace(w_in=torch.zeros(4, 4))


def test_they_stay_where_they_are_a_small_share_of_the_device() -> None:
    h200, small = 141 * 10**9, 24 * 10**9
    assert kept_bytes(SIZES["1b"].config, h200) == 2 * 16 * 12 * 2048**2
    assert kept_bytes(SIZES["12b"].config, h200) == 0
    assert kept_bytes(SIZES["410m"].config, small) > 0 == kept_bytes(SIZES["1b"].config, small)
    assert kept_bytes(SIZES["14m"].config, 0) == 0


def test_kept_weights_are_widened_once() -> None:
    launch, wide = weights(keeps=True)
    one, other = layer(), layer()
    first, second, is_wide = wide.of(one, may_keep=True)
    assert is_wide and len(first) == FIRST and len(second) == SECOND
    assert (first == 1).all() and (second == 2).all()
    assert wide.of(one, may_keep=True)[0].data_ptr() == first.data_ptr() and launch.count == 2
    assert wide.of(other, may_keep=True)[0].data_ptr() != first.data_ptr() and launch.count == 4


def test_they_go_with_the_weights_that_they_are_of() -> None:
    _, wide = weights(keeps=True)
    one = layer()
    wide.of(one, may_keep=True)
    assert len(wide._kept) == 1
    del one
    assert len(wide._kept) == 0


def test_where_they_do_not_stay_there_is_room_for_one_layer() -> None:
    for keeps, may_keep in ((False, True), (True, False)):
        launch, wide = weights(keeps=keeps)
        first, second, is_wide = wide.of(layer(), may_keep=may_keep)
        assert not is_wide and first.data_ptr() == second.data_ptr() and launch.count == 0
        assert wide.of(layer(), may_keep=may_keep)[0].data_ptr() == first.data_ptr()
