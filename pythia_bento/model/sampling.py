"""How a token is chosen from one row of logits: the definition that every backend follows.

Only ids below ``num_tokens`` take part. All values are fp32 unless said otherwise.

1. A row with a non-finite logit, at any id, has no choice: -1.
2. Where the row has a mask, the logit of every id that it leaves out is the least fp32 number,
   which stays behind all others whatever follows.
3. ``raw = logit + bias``; biases on ids from ``num_tokens`` on are ignored.
4. Penalties, in vLLM's order, for the tokens that were seen. repetition, where a token is in the
   prompt or was generated: ``raw / repetition`` if ``raw > 0``, else ``raw * repetition``. Then for
   a token that was generated ``count`` times, ``raw - count * frequency``, then ``raw - presence``
   (OpenAI's definitions). Every operation is rounded to fp32 by itself.
5. Temperature 0: the largest ``raw``, the lowest id on a tie. Nothing below applies.
6. ``z = raw / temperature``. Candidates are ranked by (z falling, id rising).
7. top-k: with ``0 < top_k < num_tokens``, the first ``top_k`` candidates stay.
8. ``weight = exp(z - max z)``. top-p: with ``top_p < 1``, the shortest prefix of the ranking stays
   whose sum of weights reaches ``top_p`` times the sum over all candidates that top-k left (sums in
   fp64); at least one candidate.
9. min-p: candidates with ``weight < min_p`` leave. The best one has weight 1 and always stays.
10. The candidate with the largest ``z + noise`` wins, the lowest id on a tie. The noise is
    Gumbel's, so this draws from the softmax of ``z`` over the candidates (the Gumbel-max trick).

The noise of a token is ``-ln(-ln u)`` with ``u = (word >> 9) * 2^-23 + 2^-24``: 23 bits, because
these values are exact in fp32 and never 0 or 1. ``word`` is word 0 of Philox-4x32-10 (Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) for the counter
``(token, position, 0, 0)`` and the key ``(seed mod 2^32, seed >> 32)``, seed taken modulo 2^64.
It depends on nothing else, so neither does the choice. Backends may round ``exp`` and ``ln``
differently in the last place; on one backend the choice is a function of the row alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pythia_bento.model.sampling_row import Penalties, SamplingRow

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LEAST = torch.finfo(torch.float32).min


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox-4x32-10: four int64 tensors of 32-bit words and a key to four of the same."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return [c0, c1, c2, c3]


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product; by halves, as 64 bits here are signed."""
    low = a * (b & 0xFFFF)
    middle = a * (b >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def gumbel_noise(seed: int, position: int, ids: Tensor) -> Tensor:
    """Noise of the tokens ``ids`` (integers, any shape) at ``position``: fp32, same shape."""
    token = ids.long()
    zero = torch.zeros_like(token)
    key = (seed & _WORD, (seed >> 32) & _WORD)
    word = philox((token, torch.full_like(token, position), zero, zero), key)[0]
    u = (word >> 9).float() * 2.0**-23 + 2.0**-24
    return -(-u.log()).log()


def choose(logits: Tensor, row: SamplingRow, num_tokens: int) -> int:
    """The next token from one row (fp32 [V]); -1 where a logit is not finite."""
    if not bool(logits.isfinite().all()):
        return -1
    [logits] = masked(logits[None], [row])
    raw = penalised(_biased(logits[:num_tokens], row.bias), row.penalties)
    if row.temperature == 0:
        return _argmax(raw)
    z = raw / row.temperature
    ids = candidates(z, row)
    return int(ids[_argmax(z[ids] + gumbel_noise(row.seed, row.position, ids))])


def masked(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """fp32 [R, V] after the masks of some rows; ``logits`` itself where none has one.

    Backends begin with this. A logit that is not finite stays what it is: its row has no choice.
    """
    masks = [(place, row.mask) for place, row in enumerate(rows) if row.mask is not None]
    if not masks:
        return logits
    device = logits.device
    words = torch.from_numpy(np.stack([mask for _, mask in masks])).to(device)
    bits = (words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=device)) & 1
    bits = bits.flatten(1).bool()
    allowed = functional.pad(bits, (0, logits.shape[1] - bits.shape[1]))  # or cut off
    places = torch.tensor([place for place, _ in masks], device=device)
    own = logits[places]
    kept = torch.where(allowed | ~own.isfinite(), own, _LEAST)
    return logits.index_copy(0, places, kept)


def candidates(z: Tensor, row: SamplingRow) -> Tensor:
    """Ids that top-k, top-p and min-p leave of tempered logits (fp32 [n]), in rising order."""
    if row.top_k <= 0 and row.top_p >= 1 and row.min_p <= 0:
        return torch.arange(len(z), device=z.device)
    ranked, ids = z.sort(descending=True, stable=True)
    if 0 < row.top_k < len(z):
        ranked, ids = ranked[: row.top_k], ids[: row.top_k]
    weights = (ranked - ranked[0]).exp()
    keep = weights >= row.min_p
    if row.top_p < 1:
        sums = weights.double().cumsum(0)
        keep[1:] &= sums[:-1] < row.top_p * sums[-1]
    return ids[keep].sort().values


def _biased(logits: Tensor, bias: tuple[tuple[int, float], ...]) -> Tensor:
    inside = [(token, value) for token, value in bias if token < len(logits)]
    if not inside:
        return logits
    ids = torch.tensor([token for token, _ in inside], device=logits.device)
    values = torch.tensor([value for _, value in inside], device=logits.device)
    return logits.index_add(0, ids, values.to(logits.dtype))


def penalised(raw: Tensor, penalties: Penalties | None) -> Tensor:
    """fp32 [n] after the penalties on ids below n; ``raw`` itself where there are none."""
    if penalties is None or len(penalties.ids) == 0:
        return raw
    inside = penalties.ids < len(raw)
    ids = torch.from_numpy(penalties.ids[inside]).to(raw.device).long()
    counts = torch.from_numpy(penalties.counts[inside]).to(raw.device).float()
    values = raw[ids]
    values = torch.where(values > 0, values / penalties.repetition, values * penalties.repetition)
    values -= counts * penalties.frequency
    values = torch.where(counts > 0, values - penalties.presence, values)
    return raw.index_copy(0, ids, values)


def _argmax(values: Tensor) -> int:
    """The first of the largest values; ``torch.argmax`` promises no order among equals."""
    return int((values == values.max()).nonzero()[0])
