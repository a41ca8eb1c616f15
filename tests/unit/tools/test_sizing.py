"""The sizing tables, against the backends that allocate the memory and against the guide."""

from __future__ import annotations

import pytest
import torch

from pythia_bento.catalog import SIZES
from pythia_bento.model import kernels
from tests.tools import TOOLS, tool

sizing = tool("sizing")
GUIDE = TOOLS.parent / "docs" / "operations.md"


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_the_guide_has_the_tables_as_they_are_calculated(kind: str) -> None:
    assert sizing.table(kind) in GUIDE.read_text()


@pytest.mark.parametrize("size", ["70m", "1b"])
def test_bytes_a_token_are_the_backend_s(size: str) -> None:
    config = SIZES[size].config
    backend = kernels.create("cpu", config, torch.device("cpu"), "w8a16")
    per_block = backend.kv_bytes_per_block()
    assert sizing.kv_bytes_per_token(config, "cpu") * backend.block_size == per_block


def test_more_memory_is_more_tokens_and_too_little_is_none() -> None:
    config = SIZES["12b"].config
    assert sizing.tokens_that_fit(config, "gpu", 12e9) == 0
    fits = [sizing.tokens_that_fit(config, "gpu", gb * 1e9) for gb in (16, 24, 80)]
    assert 0 < fits[0] < fits[1] < fits[2]
