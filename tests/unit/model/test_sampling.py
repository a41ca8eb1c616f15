"""The definition of sampling: Philox against published vectors, filters, and the distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pythia_bento.model.sampling import candidates, choose, gumbel_noise, masked, penalised, philox
from pythia_bento.model.sampling_row import Penalties, SamplingRow
from tests.amounts import rest_long

ONES = 0xFFFFFFFF
# Random123, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_vectors(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    assert tuple(int(word) for word in philox((c0, c1, c2, c3), key)) == expected


def test_noise_is_a_function_of_seed_position_and_token() -> None:
    ids = torch.arange(1000)
    noise = gumbel_noise(7, 3, ids)
    assert noise.dtype == torch.float32
    assert torch.equal(noise[torch.tensor([999, 5])], gumbel_noise(7, 3, torch.tensor([999, 5])))
    assert torch.equal(noise, gumbel_noise(7 - 2**64, 3, ids))
    for seed, position in ((8, 3), (7, 4), (7 + 2**32, 3)):
        assert (noise != gumbel_noise(seed, position, ids)).float().mean() > 0.99


def test_noise_of_the_first_counter_follows_from_the_published_word() -> None:
    u = (0x6627E8D5 >> 9) / 2**23 + 2**-24
    expected = -math.log(-math.log(u))
    assert gumbel_noise(0, 0, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-6)


def test_noise_is_finite_at_both_ends_of_the_unit_interval() -> None:
    words = torch.tensor([0, ONES])
    u = (words >> 9).float() * 2.0**-23 + 2.0**-24
    assert u.tolist() == [2**-24, 1 - 2**-24]


def test_noise_has_the_moments_of_a_gumbel_distribution() -> None:
    noise = gumbel_noise(1, 0, torch.arange(200_000)).double()
    assert noise.mean().item() == pytest.approx(0.5772157, abs=0.015)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.04)


def draw(logits: Tensor, row: SamplingRow, draws: int) -> Tensor:
    """Counts of the tokens chosen at positions 0, 1, ..."""
    chosen = torch.empty(draws, dtype=torch.long)
    for position in range(draws):
        at = SamplingRow(position, row.temperature, row.top_k, row.top_p, row.min_p, row.seed)
        chosen[position] = choose(logits, at, len(logits))
    return chosen.bincount(minlength=len(logits))


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", rest_long([2**63 + 1], [0, 12345]))
def test_draws_follow_the_softmax(seed: int) -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5, 0.5, -2.0, 1.0])
    draws = 1200
    expected = (logits / 0.8).double().softmax(0) * draws
    counts = draw(logits, SamplingRow(0, temperature=0.8, seed=seed), draws)
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 24.3  # 99.9 % quantile at 7 degrees of freedom; the seeds are fixed


@pytest.mark.no_cover
def test_draws_follow_the_softmax_of_what_the_filters_leave() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5, 0.5, -2.0, 1.0])
    draws = 800
    counts = draw(logits, SamplingRow(0, top_k=3, seed=5), draws)
    kept = torch.tensor([0, 2, 4])  # 7 ties with 2 and has the higher id
    assert counts.sum() == counts[kept].sum()
    expected = logits[kept].double().softmax(0) * draws
    assert ((counts[kept] - expected) ** 2 / expected).sum().item() < 13.8  # 99.9 %, 2 degrees


def test_greedy_takes_the_largest_and_the_lowest_id_among_equals() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 3.0])
    assert choose(logits, SamplingRow(0, temperature=0), 4) == 1


def test_bias_comes_before_the_temperature_and_bans() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0])
    greedy = SamplingRow(0, temperature=0, bias=((1, -math.inf), (2, 0.5), (2, 1.0)))
    assert choose(logits, greedy, 4) == 2
    banned = SamplingRow(0, top_k=2, top_p=0.9, bias=((1, -math.inf), (3, -math.inf)))
    assert choose(logits, banned, 4) in (0, 2)


def penalties(repetition: float = 1, frequency: float = 0, presence: float = 0) -> Penalties:
    """Token 0 is in the prompt alone, 1 was generated once, 2 three times, 9 has no logit."""
    ids, counts = np.array([0, 1, 2, 9], np.int32), np.array([0, 1, 3, 1], np.int32)
    return Penalties(repetition, frequency, presence, ids, counts)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (penalties(), [3.0, -3.0, 3.0, 3.0]),
        (penalties(presence=0.5), [3.0, -3.5, 2.5, 3.0]),
        (penalties(frequency=0.5), [3.0, -3.5, 1.5, 3.0]),
        (penalties(frequency=-2, presence=-1), [3.0, 0.0, 10.0, 3.0]),
        (penalties(repetition=2), [1.5, -6.0, 1.5, 3.0]),
        (penalties(repetition=0.5), [6.0, -1.5, 6.0, 3.0]),
        (penalties(2, 0.5, 0.25), [1.5, -6.75, -0.25, 3.0]),  # repetition first
    ],
    ids=str,
)
def test_penalties_are_those_of_openai_and_vllm(how: Penalties, expected: list[float]) -> None:
    logits = torch.tensor([3.0, -3.0, 3.0, 3.0])
    assert penalised(logits, how).tolist() == expected
    assert logits.tolist() == [3.0, -3.0, 3.0, 3.0]  # not changed in place


def test_penalties_come_after_the_bias_and_before_the_temperature() -> None:
    logits = torch.tensor([1.0, 2.0, 4.0, 3.0])
    row = SamplingRow(0, temperature=0, bias=((2, -3.0),), penalties=penalties(repetition=4))
    assert choose(logits, row, 4) == 3  # 2 and 0: 1/4, 1: 2/4
    banned = SamplingRow(0, bias=((3, -math.inf),), penalties=penalties(frequency=2), seed=2)
    assert choose(logits, banned, 4) in (0, 1, 2)


def test_ids_without_a_token_are_never_chosen() -> None:
    logits = torch.tensor([0.0, 1.0, 9.0, 9.0])
    assert choose(logits, SamplingRow(0, temperature=0, bias=((3, 5.0),)), 2) == 1
    assert draw(logits[:2], SamplingRow(0, seed=1), 50).sum() == 50
    assert all(choose(logits, SamplingRow(p, seed=1), 2) < 2 for p in range(50))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_with_a_non_finite_logit_has_no_choice(bad: float) -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, bad])
    assert choose(logits, SamplingRow(0, temperature=0), 3) == -1
    assert choose(logits, SamplingRow(0, seed=1), 3) == -1


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (SamplingRow(0, top_p=0.49), [1]),
        (SamplingRow(0, top_p=0.51), [1, 2]),
        (SamplingRow(0, top_p=0.74), [1, 2]),
        (SamplingRow(0, top_p=0.76), [0, 1, 2]),  # 0 and 3 are equal; the lower id comes first
        (SamplingRow(0, min_p=0.24), [0, 1, 2, 3]),
        (SamplingRow(0, min_p=0.26), [1, 2]),
        (SamplingRow(0, top_k=2, top_p=0.66), [1]),  # of what top-k left, the best is 2/3
        (SamplingRow(0, top_k=2, top_p=0.67), [1, 2]),
        (SamplingRow(0, top_k=99), [0, 1, 2, 3]),
        (SamplingRow(0, top_p=1e-9, min_p=1), [1]),
    ],
)
def test_filters_keep_the_shortest_prefix(row: SamplingRow, expected: list[int]) -> None:
    z = torch.tensor([0.125, 0.5, 0.25, 0.125]).log2() * math.log(2)
    assert candidates(z, row).tolist() == expected


rows = st.builds(
    SamplingRow,
    position=st.integers(0, 2047),
    temperature=st.sampled_from([1e-6, 0.3, 1.0, 2.5, 100.0]),
    top_k=st.integers(0, 70),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)


@given(row=rows, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_choice_is_a_candidate_and_repeats(row: SamplingRow, seed: int) -> None:
    logits = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * 5
    chosen = choose(logits, row, 60)
    assert chosen == choose(logits.clone(), row, 60)
    kept = candidates(logits[:60] / row.temperature, row)
    assert chosen in kept
    assert logits[:60].argmax() in kept


def mask_of(*ids: int, words: int = 3) -> np.ndarray:
    bits = np.zeros(32 * words, np.uint8)
    bits[list(ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


@pytest.mark.parametrize("options", [{}, {"top_k": 9}, {"top_p": 0.99}, {"min_p": 0.001}], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 0.01, 1.0, 100.0])
def test_only_what_a_mask_allows_is_chosen(options: dict, temperature: float) -> None:
    logits, mask = 5 * torch.randn(90, generator=torch.Generator().manual_seed(2)), mask_of(31, 64)
    rows = [SamplingRow(p, temperature, **options, mask=mask) for p in range(50)]
    chosen = {choose(logits, row, 80) for row in rows}
    assert chosen <= {31, 64}
    assert len(chosen) == (1 if temperature < 1 else 2)


def test_a_mask_that_allows_all_changes_nothing() -> None:
    logits, mask = torch.randn(90), np.full(3, -1, np.int32)
    for position in range(20):
        plain = SamplingRow(position, top_p=0.9, bias=((3, 1.0),))
        with_mask = SamplingRow(position, top_p=0.9, bias=((3, 1.0),), mask=mask)
        assert choose(logits, with_mask, 80) == choose(logits, plain, 80)


def test_a_mask_hides_no_logit_that_is_not_finite() -> None:
    for value in (math.nan, math.inf, -math.inf):
        logits = torch.zeros(90)
        logits[5] = value
        assert choose(logits, SamplingRow(0, mask=mask_of(7)), 80) == -1


def test_masks_are_of_their_rows_alone() -> None:
    logits, plain = torch.randn(4, 90), SamplingRow(0)
    assert masked(logits, [plain] * 4) is logits
    found = masked(logits, [plain, SamplingRow(0, mask=mask_of(7)), plain, plain])
    assert torch.equal(found[[0, 2, 3]], logits[[0, 2, 3]])
    assert found[1].argmax() == 7 and found[1, 7] == logits[1, 7]
    assert (found[1] == torch.finfo(torch.float32).min).sum() == 89


@pytest.mark.parametrize("words", [1, 2, 3, 5])
def test_ids_without_a_bit_are_not_allowed(words: int) -> None:
    [found] = masked(torch.ones(1, 70), [SamplingRow(0, mask=mask_of(7, words=words))])
    assert found.argmax() == 7 and (found == 1).sum() == 1
