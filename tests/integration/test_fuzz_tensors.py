"""Random safetensors files and indexes are read as their bytes say, or refused in a sentence."""

from __future__ import annotations

from tests.amounts import amounts
from tests.fuzz.kinds import no_faults


@amounts(150, 2000)
def test_tensor_files(amount: int) -> None:
    no_faults("tensors", amount)
