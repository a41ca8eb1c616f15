"""The compiled kernels refuse whatever would make them leave their arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu.kernels import CpuKernels
from pythia_bento.model.kernels.cpu.library import CShape
from pythia_bento.model.sampling_row import Penalties, SamplingRow
from tests.integration.engine_parts import RandomWeights

CONFIG = ModelConfig(
    num_layers=1,
    hidden_size=64,
    num_heads=2,
    intermediate_size=96,
    vocab_size=300,
    max_positions=64,
    rotary_dims=8,
)
BLOCKS = 4


@pytest.fixture(scope="module")
def kernels() -> CpuKernels:
    return CpuKernels(CONFIG, threads=1)


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def batch(**changes: torch.Tensor) -> ForwardBatch:
    """Two sequences: 3 tokens at position 0, and 1 token at position 20."""
    right = ForwardBatch(
        token_ids=ints(1, 2, 3, 4),
        positions=ints(0, 1, 2, 20),
        slots=ints(16, 17, 18, 52),
        query_starts=ints(0, 3, 4),
        context_lens=ints(3, 21),
        block_tables=torch.tensor([[1, 0], [2, 3]], dtype=torch.int32),
    )
    return replace(right, **changes)


def attend(kernels: CpuKernels, changed: ForwardBatch) -> torch.Tensor:
    cache = kernels.allocate_cache(BLOCKS)
    cache.keys.zero_(), cache.values.zero_()
    return kernels.attend(0, torch.ones(4, 3 * CONFIG.hidden_size), cache, changed)


def test_what_is_right_is_computed(kernels: CpuKernels) -> None:
    assert attend(kernels, batch()).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": ints(0, 1, 64, 20)}, "position is out of range"),
        ({"positions": ints(0, -1, 2, 20)}, "position is out of range"),
        ({"slots": ints(16, 17, 18, 64)}, "slot is out of range"),
        ({"slots": ints(-1, 17, 18, 52)}, "slot is out of range"),
        ({"query_starts": ints(0, 3, 5)}, "does not reach from 0 to the tokens"),
        ({"query_starts": ints(1, 3, 4)}, "does not reach from 0 to the tokens"),
        ({"query_starts": ints(0, 5, 4)}, "query_starts does not rise"),
        ({"context_lens": ints(2, 21)}, "passes context_lens"),
        ({"context_lens": ints(3, 33)}, "context_lens passes the block table"),
        ({"context_lens": ints(3, -1)}, "passes context_lens"),
        ({"block_tables": torch.tensor([[4, 0], [2, 3]], dtype=torch.int32)}, "a block table"),
        ({"block_tables": torch.tensor([[1, 0], [2, -3]], dtype=torch.int32)}, "a block table"),
    ],
)
def test_a_batch_that_would_leave_the_cache(
    kernels: CpuKernels, changes: dict[str, torch.Tensor], words: str
) -> None:
    with pytest.raises(ValueError, match=f"pythia_attend: .*{words}"):
        attend(kernels, batch(**changes))


@pytest.mark.parametrize(
    ("rows", "keys", "words"),
    [
        ([4], 32, "a row is out of range"),
        ([0, -1], 32, "a row is out of range"),
        ([0, 1, 2, 3, 3], 32, "more rows are asked than there are tokens"),
        ([0], 16, "keys is not what the block tables have room for"),
        ([0], 48, "keys is not what the block tables have room for"),
    ],
)
def test_rows_that_have_no_weights(
    kernels: CpuKernels, rows: list[int], keys: int, words: str
) -> None:
    cache, qkv = kernels.allocate_cache(BLOCKS), torch.ones(4, 3 * CONFIG.hidden_size)
    with pytest.raises(ValueError, match=f"pythia_patterns: {words}"):
        kernels.patterns(0, qkv, cache, batch(), torch.tensor(rows), keys)


def test_a_batch_is_checked_for_its_weights_too(kernels: CpuKernels) -> None:
    cache, qkv = kernels.allocate_cache(BLOCKS), torch.ones(4, 3 * CONFIG.hidden_size)
    for wrong in (batch(context_lens=ints(3, 33)), batch(slots=ints(-1, 17, 18, 52))):
        with pytest.raises(ValueError, match="pythia_patterns: "):
            kernels.patterns(0, qkv, cache, wrong, torch.tensor([0]), 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda shape: setattr(shape, "rotary_dims", 64), "rotary_dims"),
        (lambda shape: setattr(shape, "rotary_dims", 7), "rotary_dims"),
        (lambda shape: setattr(shape, "rotary_dims", -2), "rotary_dims"),
        (lambda shape: setattr(shape, "head_dim", 24), "head_dim"),
        (lambda shape: setattr(shape, "heads", 0), "heads"),
        (lambda shape: setattr(shape, "positions", 0), "positions"),
    ],
)
def test_a_shape_that_no_model_has(change: Callable[[CShape], None], words: str) -> None:
    kernels = CpuKernels(CONFIG, threads=1)
    change(kernels._shape)
    with pytest.raises(ValueError, match=words):
        attend(kernels, batch())


def test_linears_that_do_not_fit_each_other() -> None:
    kernels = CpuKernels(CONFIG, threads=1)
    layer = kernels.load_layer(RandomWeights(CONFIG).layer(0))
    layer.struct.down.in_ = 112
    x = torch.zeros(1, CONFIG.hidden_size)
    with pytest.raises(ValueError, match="do not fit each other"):
        kernels.project_in(layer, x)
    with pytest.raises(ValueError, match="do not fit each other"):
        kernels.project_out(layer, x, x, torch.zeros(1, CONFIG.intermediate_size))
    with pytest.raises(ValueError, match="do not fit each other"):
        kernels.project_out_parts(layer, x, torch.zeros(1, CONFIG.intermediate_size))


@pytest.mark.parametrize(("field", "value"), [("in_", 72), ("in_", 0), ("out", 1 << 40)])
def test_a_head_that_no_model_has(field: str, value: int) -> None:
    kernels = CpuKernels(CONFIG, threads=1)
    head = kernels.load_head(RandomWeights(CONFIG).head())
    setattr(head.struct, field, value)
    for call in (kernels.logits, kernels.normalised):
        with pytest.raises(ValueError, match=r"out of range|multiple of 16"):
            call(head, torch.zeros(0, CONFIG.hidden_size))


BELOW = np.array([-7], np.int32)
ONCE = np.ones(1, np.int32)


@pytest.mark.parametrize(
    "row",
    [
        SamplingRow(0, bias=((-1, 1.0),)),
        SamplingRow(0, penalties=Penalties(1.0, 0.5, 0.0, BELOW, ONCE)),
    ],
)
def test_ids_below_0_are_no_tokens(kernels: CpuKernels, row: SamplingRow) -> None:
    with pytest.raises(ValueError, match="below 0"):
        kernels.sample(torch.zeros(1, 300), [row], 300)


def test_more_tokens_or_alternatives_than_logits(kernels: CpuKernels) -> None:
    logits = torch.zeros(1, 300)
    with pytest.raises(ValueError, match="more tokens than logits"):
        kernels.sample(logits, [SamplingRow(0)], 301)
    with pytest.raises(ValueError, match="more alternatives"):
        kernels.logprobs(logits, ints(1), 301)
